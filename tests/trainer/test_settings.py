"""The trainers' settings."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError

from loraloop.errors import ConfigError
from loraloop.trainer.dpo import Dpo
from loraloop.trainer.sft import Sft

CONF = Path(__file__).parents[2] / "conf" / "trainer"


def test_defaults_are_those_promised():
    """Three epochs of the main job, batch 4 x 4, 2e-4, 10% warm-up, 512 tokens (promise T3)."""
    part = Sft()
    assert (part.passes(2560), part.batch_size, part.accumulation, part.max_length) == (3, 4, 4, 512)
    assert (part.learning_rate, part.warmup) == (2e-4, 0.1)


@pytest.mark.parametrize(
    ("changes", "rows", "epochs", "steps"),
    [
        ({}, 5, 100, 100),
        ({}, 48, 34, 102),
        ({}, 533, 3, 102),
        ({}, 2560, 3, 480),
        ({"max_steps": 4}, 48, 34, 4),
        ({"epochs": 3}, 48, 3, 9),
    ],
)
def test_few_rows_are_gone_through_until_a_hundred_steps_are_made(changes, rows, epochs, steps):
    """epochs=auto is 3, or as many as make 100 steps of few rows; max_steps ends it sooner, and a number is kept."""
    settings = Sft(**changes)
    assert (settings.passes(rows), settings.steps(rows)) == (epochs, steps)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"epochs": "automatic"},
        {"learning_rate": 0},
        {"warmup": 1.0},
        {"max_length": 7},
        {"schedule": "cosin"},
        {"bf16": "yes please"},
        {"max_steps": 0},
        {"lerning_rate": 1e-3},
        {"micro_batch": 5},
    ],
)
def test_values_outside_their_bounds_are_refused(values):
    """Values out of range, unknown options and unknown keys cannot be built."""
    with pytest.raises(ValidationError):
        Sft(**values)


def test_the_yaml_lists_every_key_with_its_default():
    """``sft.yaml`` has exactly the part's keys, and its values are the part's defaults."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "sft.yaml"))
    values.pop("_target_")
    assert values.pop("learning_rate") == "${model.learning_rate}"
    assert values.pop("seed") == "${seed}"
    assert set(values) | {"learning_rate", "seed"} == {field.name for field in fields(Sft)}
    assert Sft(**values) == Sft()


def test_dpo_is_a_variant():
    """``dpo.yaml`` is sft with another class, ``beta``, the last turn alone and a rate of its own."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "dpo.yaml"))
    assert values == {
        "defaults": ["sft"],
        "_target_": "loraloop.trainer.dpo.Dpo",
        "loss_on": "last",
        "learning_rate": 3e-5,
        "beta": Dpo().beta,
    }


def test_length_is_held_against_the_positions():
    """A max_length beyond the model's positions is refused with the most that fits."""
    config = SimpleNamespace(max_position_embeddings=256)
    Sft(max_length=256).check_model(config)
    with pytest.raises(ConfigError, match=r"trainer\.max_length=512 .*max_length=256 or less"):
        Sft().check_model(config)


def test_packing_needs_an_isolating_attention(monkeypatch):
    """packing=true is refused on a machine without a GPU, and for preference pairs anywhere."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="neighbours"):
        Sft(packing=True).check()
    with pytest.raises(ValidationError, match="trainer=dpo"):
        Dpo(packing=True)


def test_only_what_decides_the_weights_must_agree_on_resuming():
    """Cadence of logging and saving, and the price, may change when a run is resumed; nothing else may."""
    assert set(Sft().decisive()) == {field.name for field in fields(Sft)} - {
        "eval_steps", "eval_growth", "save_steps", "log_steps", "keep_checkpoints", "cost_per_hour",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("every", "growth", "looks"),
    [
        (None, 1, [10, 20, 22]),
        (5, 1, [5, 10, 15, 20, 22]),
        (0.125, 1, [3, 6, 9, 12, 15, 18, 21, 22]),
        (0.125, 2, [3, 6, 12, 22]),
        (2, 3, [2, 6, 18, 22]),
        (None, 2, [10, 20, 22]),
        (22, 2, [22]),
    ],
)
def test_validations_come_evenly_or_ever_more_rarely_and_at_the_end(every, growth, looks):
    """The steps after which the validation rows are scored, of 22 steps in epochs of 10."""
    settings = Sft(eval_steps=every, eval_growth=growth)
    assert [step for step in range(1, 23) if settings.validates(step, 22, 10)] == looks
