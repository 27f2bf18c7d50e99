"""The shape of an adapter and its fit to a base model."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.errors import ConfigError
from loraloop.lora import Lora, linear_layers


@pytest.fixture(scope="module")
def llama():
    """A fresh random Llama of hidden size 32 with two layers, on a device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def build(device="cpu"):
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            return LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=64,
                    hidden_size=32,
                    intermediate_size=48,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    num_key_value_heads=1,
                    attention_bias=True,
                )
            )

    return build


def logits(model):
    import torch

    with torch.no_grad():
        return model(torch.arange(20)[None]).logits


def test_alpha_follows_the_rank():
    """Alpha null means twice the rank, and an alpha of its own wins."""
    assert Lora().peft_config().lora_alpha == 32
    assert Lora(r=8).effective_alpha == 16
    assert Lora(r=8, alpha=5).peft_config().lora_alpha == 5


def test_defaults_are_those_promised():
    """Dropout 0.05, no bias, the attention projections (promise T2)."""
    config = Lora().peft_config()
    assert (config.r, config.lora_dropout, config.bias) == (16, 0.05, "none")
    assert set(config.target_modules) == {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.mark.parametrize(
    "values",
    [{"r": 0}, {"dropout": 1.0}, {"targets": "q_proj"}, {"targets": []}, {"init": "loftq"}, {"seed": 1}, {"alpha": 0}],
)
def test_values_outside_their_bounds_are_refused(values):
    """A rank below 1, a dropout of 1, no targets, an unknown initialisation or key cannot be built."""
    with pytest.raises(ValidationError):
        Lora(**values)


def test_initialisations_that_cannot_be_turned_back_are_refused():
    """PiSSA with DoRA, or with patterns under rsLoRA, is refused with the way out."""
    with pytest.raises(ValidationError, match="init: default"):
        Lora(init="pissa", use_dora=True)
    with pytest.raises(ValidationError, match="leave these out"):
        Lora(init="olora", use_rslora=True, rank_pattern={"q_proj": 4})
    with pytest.raises(ValidationError, match="even rank"):
        Lora(init="orthogonal", r=3)


def test_unknown_targets_are_named_with_the_nearest(llama):
    """A target that is no linear layer is named, with the nearest one and all there are."""
    with pytest.raises(ConfigError) as error:
        Lora(targets=("q_prj", "v_proj", "lm_head")).check_model(llama("meta"))
    first, second = error.value.problems
    assert "'q_prj'" in first
    assert "did you mean q_proj?" in first
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in first
    assert "'lm_head'" in second


def test_a_rank_above_a_dimension_is_refused(llama):
    """A rank above the smallest targeted dimension is refused with the largest that fits."""
    with pytest.raises(ConfigError, match=r"lora\.r=17 .*choose at most 16"):
        Lora(r=17).check_model(llama("meta"))
    Lora(r=16).check_model(llama("meta"))
    Lora(r=17, rank_pattern={"k_proj": 4, "v_proj": 4}).check_model(llama("meta"))


def test_a_pattern_that_matches_nothing_is_refused(llama):
    """Every key of a rank or alpha pattern must match a targeted layer."""
    with pytest.raises(ConfigError) as error:
        Lora(r=4, rank_pattern={"down_proj": 2}, alpha_pattern={"layers.9.q_proj": 2}).check_model(llama("meta"))
    assert ["rank_pattern" in p or "alpha_pattern" in p for p in error.value.problems] == [True, True]


def test_initialisations_that_change_the_base_need_a_base_that_can_change(llama):
    """PiSSA and OLoRA are refused on a base in 4 bits."""
    model = llama("meta")
    model.is_loaded_in_4bit = True
    with pytest.raises(ConfigError, match="init=default"):
        Lora(r=4, init="pissa").check_model(model)


@settings(max_examples=25, deadline=None)
@given(
    r=st.integers(1, 16),
    targets=st.one_of(
        st.just("all-linear"), st.sets(st.sampled_from(["q_proj", "k_proj", "up_proj", "mlp.down_proj"]), min_size=1)
    ),
    bias=st.sampled_from(["none", "all", "lora_only"]),
    dora=st.booleans(),
    pattern=st.dictionaries(st.sampled_from(["q_proj", r"layers\.1\.self_attn\.k_proj"]), st.integers(1, 8)),
)
def test_parameters_are_counted_as_peft_makes_them(llama, r, targets, bias, dora, pattern):
    """The count from shapes equals the parameters that PEFT trains, for any ranks, targets, biases and DoRA."""
    from peft import get_peft_model

    part = Lora(r=r, targets=targets, bias=bias, use_dora=dora, rank_pattern=pattern)
    expected = part.trainable_parameters(llama("meta"))
    model = get_peft_model(llama(), part.peft_config())
    assert model.get_nb_trainable_parameters()[0] == expected


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal", "olora", "pissa", "pissa_niter_4"])
def test_every_initialisation_starts_at_the_base(llama, init):
    """Whatever the initialisation, the untrained adapter answers like the base."""
    import torch
    from peft import get_peft_model

    base = logits(llama().eval())
    part = Lora(r=4, init=init)
    part.check_model(llama("meta"))
    torch.manual_seed(0)
    model = get_peft_model(llama(), part.peft_config()).eval()
    assert torch.allclose(logits(model), base, atol=1e-5)


def test_the_output_head_is_no_target(llama):
    """``all-linear`` adapts every linear layer but the output head."""
    names = linear_layers(llama("meta"))
    assert len(names) == 14
    assert not any("lm_head" in name for name in names)


def test_rank_variants_differ_in_rank_alone():
    """The rank YAMLs are a few lines over r16, and r16 lists every key."""
    from dataclasses import fields

    from omegaconf import OmegaConf

    conf = Path(__file__).parents[1] / "conf" / "lora"
    whole = OmegaConf.load(conf / "r16.yaml")
    assert set(whole) - {"_target_"} == {field.name for field in fields(Lora)}
    for rank in (8, 12, 32, 64):
        assert OmegaConf.to_container(OmegaConf.load(conf / f"r{rank}.yaml")) == {"defaults": ["r16"], "r": rank}
