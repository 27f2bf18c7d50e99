"""A training leaves the base as it was, so that everything that is compared answers on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loraloop.errors import TrainingError

if TYPE_CHECKING:
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Lora
    from loraloop.records import LoadedModel


@contextmanager
def same_base(loaded: LoadedModel, model: CausalLM, lora: Lora) -> Iterator[None]:
    """Around a training: afterwards the base carries no adapter and has the weights that it had before.

    After an interruption (Ctrl+C) it is left as it is, because nothing uses it any more.

    PiSSA and OLoRA move a part of the base into the adapter, and biases may train along. What these change is read
    again from where the base was loaded.

    Raises:
        TrainingError: Other weights changed, or could not be restored.
    """
    from loraloop.model import adapters, identity

    before = identity.checksums(loaded.model)
    try:
        yield
    except Exception:
        adapters.detach(loaded.model)
        _restore(loaded, model, lora, before)
        raise
    adapters.detach(loaded.model)
    _restore(loaded, model, lora, before)


def _restore(loaded: LoadedModel, model: CausalLM, lora: Lora, before: dict[str, int]) -> None:
    changed = _changed(loaded, before)
    if changed and (lora.mutates_base or lora.bias != "none"):
        fresh = model.load().model
        for name in changed:
            loaded.model.get_parameter(name).data.copy_(fresh.get_parameter(name))
        changed = _changed(loaded, before)
    if changed:
        raise TrainingError(
            f"the training ended with another base than it began with: {len(changed)} of its weights changed, such as "
            f"{changed[0]}, and the adapter would not do on the real base what was measured. Nothing was registered: "
            "choose a trainer that trains the adapter alone"
        )


def _changed(loaded: LoadedModel, before: dict[str, int]) -> list[str]:
    from loraloop.model import identity

    after = identity.checksums(loaded.model)
    return [name for name in before | after if before.get(name) != after.get(name)]
