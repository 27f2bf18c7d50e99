"""Bytes that live at once in a training step, counted by running the step on tensors without storage."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloop.trainer.choices import Choices, on_gpu
from loraloop.trainer.scoring import entropies, scored_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from loraloop.protocols import Lora


@dataclass(frozen=True, slots=True)
class Pass:
    """The shape of a forward pass: rows of one length, and the tokens of all that the loss falls on."""

    rows: int
    length: int
    scored: int


@dataclass(slots=True)
class Peak:
    """Bytes that live now, and the most that lived at once."""

    now: int = 0
    most: int = 0

    def add(self, size: int) -> None:
        """Note that tensors of ``size`` bytes came to life, or died where it is negative."""
        self.now += size
        self.most = max(self.most, self.now)


def step_bytes(
    model: PreTrainedModel, lora: Lora, shape: Pass, choices: Choices, *, quantized: bool, dtype: str
) -> int:
    """Most bytes that live at once in a forward and backward pass, beside weights, gradients and optimizer.

    Args:
        model: The base, perhaps on the meta device: it is not run itself.
        lora: The adapter to train.
        shape: The largest pass.
        choices: Precision and checkpointing.
        quantized: Whether the base is quantised, which has TRL 1.16 keep the adapter in bfloat16.
        dtype: Of the base's other weights, in which quantised layers compute.
    """
    import torch
    from peft import get_peft_model

    device = "cuda" if on_gpu(model) else "cpu"
    with torch.device("meta"):
        wrapped: Any = get_peft_model(shapes(model, dtype), _plain(lora.peft_config()))
    base = wrapped.get_base_model()
    if choices.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    if quantized:
        for value in _trained(wrapped):
            value.data = value.data.to(torch.bfloat16)
    with counted(wrapped, device) as peak:
        for value in _trained(wrapped):
            value.grad = torch.zeros_like(value)
        before = peak.now
        ids = torch.zeros(shape.rows, shape.length, dtype=torch.long, device=device)
        positions = torch.zeros(shape.scored, dtype=torch.long, device=device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.autocast(device, torch.bfloat16, enabled=choices.bf16):
            log_probs = scored_logits(wrapped, base.get_output_embeddings(), inputs, positions).log_softmax(-1)
            entropies(log_probs)
        log_probs.gather(-1, positions[:, None]).sum().backward()
        return peak.most - before


@contextmanager
def counted(model: Any, device: str) -> Iterator[Peak]:
    """Within the context tensors have no storage but a size, which is counted; ``model`` has such weights.

    Args:
        model: On the meta device, in training mode afterwards.
        device: Where its tensors claim to be, which decides how operations are carried out.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    peak = Peak()
    known: dict[int, weakref.ref[Any]] = {}

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for value in tree_leaves(out):
                if isinstance(value, torch.Tensor):
                    note(value.untyped_storage())
            return out

    def note(storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in known:
            peak.add(size)
            known[key] = weakref.ref(storage, lambda _: forget(key, size))

    def forget(key: int, size: int) -> None:
        del known[key]
        peak.add(-size)

    with FakeTensorMode():
        _without_storage(model, device)
        model.train()
        for value in (*model.parameters(), *model.buffers()):
            note(value.untyped_storage())
        with Counter():  # type: ignore[no-untyped-call]
            yield peak


def shapes(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """A model of the same configuration without weights; attention is torch's own, which takes as much memory."""
    import copy

    import torch
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, name):
            delattr(config, name)
    with torch.device("meta"):
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation="sdpa", trust_remote_code=False
        )
    return made


def _trained(model: Any) -> list[Any]:
    return [value for value in model.parameters() if value.requires_grad]


def _plain(config: Any) -> Any:
    """Without an initialisation that computes: it has no effect on sizes."""
    config.init_lora_weights = True
    return config


def _without_storage(model: Any, device: str) -> None:
    """Replace weights on the meta device, tied ones by one."""
    import torch

    made: dict[int, Any] = {}
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                empty = torch.empty(value.shape, dtype=value.dtype, device=device)
                module._parameters[name] = made.setdefault(id(value), torch.nn.Parameter(empty, value.requires_grad))
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=device)
