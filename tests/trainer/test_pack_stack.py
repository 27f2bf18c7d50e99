"""Adapters side by side on one layer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

INPUTS, OUTPUTS, ROWS, LENGTH = 6, 5, 2, 3

members = st.lists(
    st.tuples(st.integers(1, 4), st.floats(0.1, 8)), min_size=1, max_size=6, unique_by=lambda pair: pair[1]
)


def make(pairs):
    """A linear layer in a module, and the adapters of members by rank and scaling."""
    import torch

    from loraloop.trainer.pack.adapter import Adapter

    generator = torch.Generator().manual_seed(0)
    layers = {"layer": (INPUTS, OUTPUTS)}
    adapters = [
        Adapter(torch.randn(rank * (INPUTS + OUTPUTS), generator=generator), layers, rank, scaling)
        for rank, scaling in sorted(pairs)
    ]
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(INPUTS, OUTPUTS)})
    return model, adapters, torch.randn(len(adapters), ROWS, LENGTH, INPUTS, generator=generator)


def alone(layer, adapter, x):
    """Output, and the gradient of its squared sum, of one member by the definition of LoRA."""
    import torch

    flat = adapter.flat.clone().requires_grad_()
    a = flat[: adapter.rank * INPUTS].view(adapter.rank, INPUTS)
    b = flat[adapter.rank * INPUTS :].view(OUTPUTS, adapter.rank)
    out = layer(x) + adapter.scaling * (x @ a.T @ b.T)
    return out.detach(), torch.autograd.grad(out.square().sum(), flat)[0]


def agrees(stack, model, adapters, x):
    """Assert that outputs and gradients are each member's own."""
    import torch

    stack.masks.begin(ROWS, LENGTH, [LENGTH] * len(adapters))
    stack.clear()
    with stack.attached(model):
        out = model["layer"](x.flatten(0, 1)).view(len(adapters), ROWS, LENGTH, OUTPUTS)
        stack.backward(out.square().sum())
    for index, (adapter, (weights, grads)) in enumerate(zip(adapters, stack.rows(), strict=True)):
        expected, gradient = alone(model["layer"], adapter, x[index])
        assert torch.equal(weights, adapter.flat)
        assert torch.allclose(out[index], expected, rtol=1e-4, atol=1e-4)
        assert torch.allclose(grads, gradient, rtol=1e-4, atol=1e-3 * float(gradient.abs().max()))


@settings(max_examples=25, deadline=None)
@given(pairs=members, data=st.data())
def test_each_member_has_its_own_output_and_gradient(pairs, data):
    """Whatever ranks stand together and whoever leaves, a member's rows meet its adapter alone."""
    import torch

    from loraloop.trainer.pack.dropout_masks import DropoutMasks
    from loraloop.trainer.pack.stack import AdapterStack

    model, adapters, x = make(pairs)
    stack = AdapterStack(adapters, DropoutMasks([(0, 0.0, 0)] * len(adapters), torch.device("cpu")))
    agrees(stack, model, adapters, x)
    kept = data.draw(st.sets(st.integers(0, len(adapters) - 1), min_size=1).map(sorted))
    rows = [weights for weights, _ in stack.rows()]
    stack.hold([adapters[index] for index in kept], [rows[index] for index in kept])
    agrees(stack, model, [adapters[index] for index in kept], x[kept])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_is_torchs(rate):
    """Members of one seed and rate share the mask that torch draws under that seed; others have their own or none."""
    import torch

    from loraloop.trainer.pack.dropout_masks import DropoutMasks

    noise = DropoutMasks([(3, rate, 0), (3, rate, 0), (4, rate, 0), (4, 0.0, 0)], torch.device("cpu"))
    noise.begin(2, 5, [5, 5, 4, 4])
    dropped = noise.drop(torch.ones(4, 10, 7)).view(4, 2, 5, 7)
    for index, (seed, length) in enumerate(((3, 5), (3, 5), (4, 4))):
        torch.manual_seed(seed)
        expected = torch.nn.functional.dropout(torch.ones(2, length, 7), rate)
        assert torch.equal(dropped[index, :, :length], expected)
    assert torch.equal(dropped[3], torch.ones(2, 5, 7))
