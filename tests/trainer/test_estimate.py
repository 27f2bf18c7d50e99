"""What a run will take, before it starts."""

import pytest

from loraloop.lora import Lora
from loraloop.records import LoadedModel
from loraloop.trainer.choices import Choices
from loraloop.trainer.dry_run import Pass
from loraloop.trainer.estimate import (
    Rows,
    activation_bytes,
    estimate,
    formula_bytes,
    memory_parts,
    parameters,
    weight_bytes,
)
from loraloop.trainer.sft import Sft

GB = 10**9


@pytest.fixture(scope="module")
def llama7b():
    """Llama-2-7B's shape, without weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(vocab_size=32000, max_position_embeddings=4096))


def choices(**changes):
    made = {"bf16": True, "gradient_checkpointing": True, "packing": False, "micro_batch": 1, "accumulation": 16}
    return Choices(**(made | changes))


def test_llama_2_7b_in_nf4_needs_less_than_8_gb(kit, llama7b):
    """LoRA r16 on Llama-2-7B in NF4 at batch 1 x 512 with checkpointing is estimated below 8 GB (promise T8)."""
    count = Lora().trainable_parameters(llama7b)
    loaded = LoadedModel(llama7b, None, kit.base(quantization="nf4-double", dtype="bfloat16"))
    parts = memory_parts(choices(), loaded, Lora(), Rows([512] * 64, [64] * 64))
    expected = estimate(Sft(), choices(), loaded, Lora(), Rows([512] * 64, [64] * 64))
    assert count == 16_777_216
    assert expected.total_parameters == 6_738_415_616 + count
    assert expected.trainable_share == pytest.approx(0.00248, abs=1e-5)
    assert 3.5 * GB < sum(parts.values()) - parts["process"] < 8 * GB


def test_weights_of_llama_2_7b(llama7b):
    """The 7B's weights take 27 GB in fp32, 13.5 in bf16, 4.2 in NF4 and 3.9 with double quantisation."""
    sizes = [
        weight_bytes(llama7b, quantization, dtype) / GB
        for quantization, dtype in (
            ("none", "float32"), ("none", "bfloat16"), ("nf4", "bfloat16"), ("nf4-double", "bfloat16"),
        )
    ]  # fmt: skip
    assert sizes == pytest.approx([26.95, 13.48, 4.17, 3.87], abs=0.01)


def test_weight_bytes_are_those_in_memory(kit):
    """The formula equals the bytes of the tensors of a loaded model."""
    model = kit.llama()
    assert weight_bytes(model, "none", "float32") == sum(value.nbytes for value in model.parameters())


def test_quantised_weights_are_counted_one_by_one(kit):
    """A model in NF4 has as many parameters as before and the bytes that the formula says."""
    from loraloop.model import nf4

    model = kit.llama()
    before = parameters(model)
    import torch

    nf4.quantize(model, torch.float32, double=False)
    assert parameters(model) == before
    states = [module.weight.quant_state for module in model.modules() if hasattr(module, "compute_dtype")]
    held = sum(value.nbytes for value in model.parameters()) + sum(state.absmax.nbytes for state in states)
    assert weight_bytes(model, "nf4", "float32") == held


def test_memory_grows_with_what_is_kept(kit):
    """Bytes that live at once grow with rows, length and scored tokens, and shrink with bf16 and checkpointing."""
    model = kit.llama()

    def need(rows=4, length=64, scored=32, **changes):
        how = choices(**({"bf16": False, "gradient_checkpointing": False} | changes))
        return activation_bytes(model, Lora(), Pass(rows, length, scored), how, kit.base())

    base = need()
    assert need(rows=8, scored=64) == pytest.approx(2 * base, rel=0.1)
    assert need(length=128) > 1.7 * base
    assert need(scored=64) > base
    assert need(bf16=True) < base
    assert need(gradient_checkpointing=True) < 0.7 * base


def test_what_cannot_be_run_dry_is_estimated_by_a_formula(kit, caplog):
    """Where the dry run fails, here for want of a layer, the estimate is the formula's and a warning says so."""
    model, shape = kit.llama(), Pass(2, 16, 8)
    bytes_needed = activation_bytes(model, Lora(targets=("nothing",)), shape, choices(), kit.base())
    assert bytes_needed == formula_bytes(model, shape, choices())
    assert "by a formula" in caplog.text


def test_packed_sequences_count_as_rows(kit):
    """2,560 rows of 82 tokens fill 410 sequences of 512, which are 26 steps of 16 an epoch, of the same tokens."""
    rows = Rows([82] * 2560, [8] * 2560)
    expected = estimate(Sft(epochs=1, packing=True), choices(packing=True), kit.loaded(), Lora(), rows)
    assert (expected.steps, expected.tokens) == (26, 82 * 2560)


@pytest.mark.parametrize(("changes", "steps"), [({}, 480), ({"epochs": 1}, 160), ({"max_steps": 100}, 100)])
def test_steps_and_tokens(kit, changes, steps):
    """2,560 rows in steps of 16 are 160 steps an epoch; tokens follow the steps."""
    expected = estimate(Sft(**changes), choices(), kit.loaded(), Lora(), Rows([75] * 2560, [8] * 2560))
    assert expected.steps == steps
    assert expected.tokens == steps * 16 * 75
    assert expected.seconds > 0
