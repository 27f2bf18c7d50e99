"""A training leaves the base as it was."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from loraloop.errors import TrainingError
from loraloop.lora import Lora
from loraloop.model import identity
from loraloop.model.causal import CausalLM
from loraloop.records import LoadedModel
from loraloop.workflows.same_base import same_base

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TINY = CausalLM(name="bundled:tiny")


@pytest.fixture(scope="module")
def bundled() -> LoadedModel:
    return TINY.load()


@pytest.fixture
def loaded(bundled: LoadedModel) -> LoadedModel:
    return LoadedModel(copy.deepcopy(bundled.model), bundled.tokenizer, bundled.base)


def adapt(model: PreTrainedModel, lora: Lora) -> None:
    from peft import get_peft_model

    get_peft_model(model, lora.peft_config())


def differs(model: PreTrainedModel, other: PreTrainedModel) -> list[str]:
    """Names of the weights that are not equal to the bit."""
    others = dict(other.named_parameters())
    return [name for name, value in model.named_parameters() if not value.equal(others[name])]


@pytest.mark.parametrize("init", ["default", "pissa", "olora"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_base_is_the_same_to_the_bit(bundled: LoadedModel, loaded: LoadedModel, init: str, *, fails: bool) -> None:
    """After a training with each way to begin, also one that failed, the base has its weights and no adapter."""
    lora = Lora(r=4, init=init)
    with pytest.raises(ValueError, match="failed") if fails else nullcontext(), same_base(loaded, TINY, lora):
        adapt(loaded.model, lora)
        if fails:
            raise ValueError("failed")
    assert differs(loaded.model, bundled.model) == []


def test_a_training_that_changes_the_base_is_an_error(loaded: LoadedModel) -> None:
    """A weight that moved although the adapter alone should train ends the run, and the message names it."""
    named = pytest.raises(TrainingError, match=r"1 of its weights changed, such as model\.norm\.weight")
    with named, same_base(loaded, TINY, Lora(r=4)):
        adapt(loaded.model, Lora(r=4))
        loaded.model.model.norm.weight.data[0] += 1e-3


def test_every_kind_of_number_has_a_checksum() -> None:
    """A change of one value changes the checksum of a weight of 1, 2, 4 or 8 bytes a value, whatever its length."""
    import torch

    for kind in (torch.uint8, torch.bfloat16, torch.float32, torch.float64):
        for length in (1, 3, 8, 17):
            model = torch.nn.ParameterDict({"x": torch.nn.Parameter(torch.ones(length, dtype=kind), False)})
            before = identity.checksums(model)
            model["x"].data[-1] = 2
            assert identity.checksums(model) != before
