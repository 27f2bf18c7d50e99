"""What ``auto`` becomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.trainer.choices import CPU_TOKENS, choose
from loraloop.trainer.sft import Sft


@pytest.fixture(scope="module")
def model():
    """A model's surroundings: no weights are looked at."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=8, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    with torch.device("cpu"):
        return LlamaForCausalLM(config)


@given(
    batch=st.integers(1, 16),
    accumulation=st.integers(1, 16),
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=9),
)
def test_a_step_keeps_its_rows(model, batch, accumulation, lengths):
    """However many rows a pass takes, a step averages over batch_size * accumulation rows."""
    chosen = choose(Sft(batch_size=batch, accumulation=accumulation), model, lengths)
    assert chosen.micro_batch * chosen.accumulation == batch * accumulation
    assert chosen.micro_batch % batch == 0
    assert chosen.micro_batch == batch or chosen.micro_batch * max(lengths) <= CPU_TOKENS


def test_short_rows_on_a_cpu_take_one_pass(model):
    """The default 4 x 4 becomes 16 x 1 for rows of 80 tokens, and stays 4 x 4 for rows of 2,000."""
    assert choose(Sft(), model, [80]).micro_batch == 16
    assert choose(Sft(), model, [2000]).micro_batch == 4


def test_explicit_values_are_taken(model):
    """Anything but auto is done as it says."""
    chosen = choose(Sft(micro_batch=2, bf16=True, gradient_checkpointing=True), model, [80])
    assert (chosen.micro_batch, chosen.accumulation, chosen.bf16, chosen.gradient_checkpointing) == (2, 8, True, True)


def test_a_cpu_does_not_recompute(model):
    """Auto recomputes activations on a GPU only."""
    assert choose(Sft(), model, [80]).gradient_checkpointing is False


def test_auto_never_packs(model, monkeypatch):
    """Packed sequences are other batches and fewer steps, so auto leaves rows alone where they could be packed too."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    assert choose(Sft(), model, [80]).packing is False
    assert choose(Sft(packing=True), model, [80]).packing is True
