"""What packs, with what, and how much of it."""

from dataclasses import fields

import pytest

from loraloop.errors import ConfigError, ModelError
from loraloop.lora import Lora
from loraloop.records import Encoded
from loraloop.trainer.choices import choose
from loraloop.trainer.dpo import Dpo
from loraloop.trainer.pack import PACKABLE_LORA, PACKABLE_TRAINER, PackedTrial, capacity, obstacle, train
from loraloop.trainer.pack.limits import trial_bytes
from loraloop.trainer.sft import Sft


@pytest.fixture(scope="module")
def model(kit):
    """The tiny Llama."""
    return kit.llama()


def skeleton(config):
    """A causal model on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    "lora", [Lora(), Lora(targets="all-linear"), Lora(init="gaussian"), Lora(r=64, use_rslora=True)]
)
def test_plain_loras_pack(kit, model, lora):
    """Any rank, scaling, target and initialisation that leaves the base alone can be packed."""
    assert obstacle(kit.settings(), lora, model) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_dora": True}, "lora.use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "lora.rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "lora.alpha_pattern"),
        ({"bias": "all"}, "lora.bias=all"),
        ({"init": "pissa"}, "lora.init=pissa"),
        ({"init": "olora"}, "lora.init=olora"),
    ],
)
def test_adapters_that_are_more_than_two_matrices_do_not_pack(kit, model, changes, reason):
    """The reason names the key."""
    assert obstacle(kit.settings(), Lora(**changes), model).startswith(reason)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Dpo(), "Dpo is another trainer"),
        (Sft(packing=True), "trainer.packing"),
        (Sft(gradient_checkpointing=True), "trainer.gradient_checkpointing=true"),
        (Sft(processes=2), "trainer.processes"),
    ],
)
def test_other_trainings_do_not_pack(model, settings, reason):
    """The reason names the trainer or the key."""
    assert obstacle(settings, Lora(), model).startswith(reason)


def test_several_processes_do_not_pack(kit, model, monkeypatch):
    """Under a launcher of several processes each would train the whole pack."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes" in obstacle(kit.settings(), Lora(), model)


def test_a_base_with_dropout_of_its_own_does_not_pack(kit):
    """GPT-2's own dropout would draw one mask for all members."""
    from transformers import GPT2Config

    config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16)
    assert "drops out" in obstacle(kit.settings(), Lora(targets=("c_attn",)), skeleton(config))


def test_a_mixture_of_experts_does_not_pack(kit):
    """Experts see the tokens that are routed to them, of whichever member."""
    from transformers import MixtralConfig

    config = MixtralConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        vocab_size=16, num_local_experts=2,
    )  # fmt: skip
    assert "experts" in obstacle(kit.settings(), Lora(), skeleton(config))


def test_a_layer_that_is_given_other_rows_is_refused(kit, tmp_path):
    """A model that hands a layer only some of the tokens is found out, rather than trained wrongly."""
    loaded = kit.loaded()
    layer = loaded.model.model.layers[1].self_attn.v_proj
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0][:, :-1],))
    members = [PackedTrial(settings=kit.settings(), lora=Lora(r=4), run=kit.Run(), output=tmp_path / "0")]
    with pytest.raises(ModelError, match=r"layers\.1\.self_attn\.v_proj .* cannot be packed"):
        train(loaded, members, kit.dataset())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"settings": {"epochs": 3}}, "trainer.epochs is 3"),
        ({"settings": {"max_length": 32}}, "trainer.max_length is 32"),
        ({"lora": {"targets": ("q_proj",)}}, "lora.targets is"),
    ],
)
def test_members_must_be_alike_in_the_rest(kit, tmp_path, changes, problem):
    """A field outside the packable ones that differs is refused with both values, before any work."""
    members = [
        PackedTrial(
            settings=kit.settings(**(changes.get("settings", {}) if index else {})),
            lora=Lora(r=4, **(changes.get("lora", {}) if index else {})),
            run=kit.Run(),
            output=tmp_path / str(index),
        )
        for index in range(2)
    ]
    with pytest.raises(ConfigError, match=problem):
        train(kit.loaded(), members, kit.dataset())
    assert not members[0].run.logged


def test_what_cannot_be_packed_is_refused(kit, tmp_path):
    """``train`` says itself what ``obstacle`` says."""
    members = [PackedTrial(settings=kit.settings(), lora=Lora(r=4, use_dora=True), run=kit.Run(), output=tmp_path)]
    with pytest.raises(ConfigError, match=r"lora\.use_dora"):
        train(kit.loaded(), members, kit.dataset())


def test_packable_fields_exist():
    """Every field in which members may differ is one of the part's."""
    assert {field.name for field in fields(Lora)} >= PACKABLE_LORA
    assert {field.name for field in fields(Sft)} >= PACKABLE_TRAINER


def rows(count, length):
    """Rows of one length that are scored at their end."""
    return [Encoded([1] * length, [-100] * (length - 8) + [1] * 8)] * count


def test_capacity_falls_with_what_a_member_needs(kit, model):
    """More rows in a pass, longer rows or more parameters leave room for fewer members; one always trains."""

    def room(lora=None, length=64, **settings):
        return capacity(kit.settings(batch_size=2, **settings), [lora or Lora(r=4)], model, rows(24, length))

    assert room() > 1
    assert room(micro_batch=4) < room(micro_batch=1)
    assert room(length=2048) < room()
    assert room(Lora(r=16, targets="all-linear")) < room()
    assert room(length=10**6) == 1


def test_capacity_leaves_room_for_a_base_that_is_not_there_yet(kit):
    """On the meta device the base's weights count, quantised ones less."""
    from transformers import LlamaConfig

    shape = LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1)
    large = LlamaConfig(hidden_size=8192, intermediate_size=2**31, num_hidden_layers=1, num_attention_heads=1)
    assert capacity(kit.settings(), [Lora(r=4)], skeleton(shape), rows(4, 64)) > 1
    assert capacity(kit.settings(), [Lora(r=4)], skeleton(large), rows(4, 64)) == 1


def test_a_member_is_counted_with_its_dropout_and_every_adapted_layer(kit, model):
    """What dropout keeps and what further layers keep is in the bytes of a member, which a formula of shapes lacks."""
    choices = choose(kit.settings(), model, [64])

    def need(**lora):
        return trial_bytes(Lora(r=4, **lora), model, rows(8, 64), choices, False, "float32")

    few = ("q_proj", "v_proj")
    plain, dropping = need(targets=few, dropout=0.0), need(targets=few, dropout=0.1)
    assert plain < dropping < need(targets="all-linear", dropout=0.1)
    tokens, hidden, layers = choices.micro_batch * 64, 32, 2
    assert dropping - plain >= 4 * tokens * hidden * layers  # one fp32 mask a layer at the least
