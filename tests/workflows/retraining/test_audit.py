"""A ledger that was cut off is noticed by what the loop's tables say was written into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loraloop.errors import RegistryError
from loraloop.loop.cycle import Event
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.tracker.none import NoTracker
from loraloop.workflows.retraining.audit import audit
from loraloop.workflows.retraining.outbox import Outbox

MODEL = "loraloop-ocr"


class Nobody:
    """Nobody is told."""

    def send(self, title: str, text: str) -> None:
        """Nothing happens."""


@pytest.fixture
def registry(loop: Any, tmp_path: Path) -> MlflowRegistry:
    """A registry whose ledger was told two decisions of the loop."""
    made = MlflowRegistry(name=MODEL, folder=tmp_path / "mlruns")
    made.ledger.append("register", 1, "by hand", alias="candidate")
    for event in ("trigger", "refuse"):
        loop.decide("validator", MODEL, "default", Event(event=event, version=None, reason="why"))
    Outbox(loop, MODEL, made, NoTracker(), Nobody()).publish()
    return made


def test_a_whole_ledger_holds(loop, registry):
    """A ledger with every decision that was told holds; what is not told yet, and other models', is not missed."""
    loop.decide("validator", MODEL, "default", Event(event="stop", version=None, reason="waits"))
    loop.decide("judge", "loraloop-judge", "default", Event(event="stop", version=None, reason="waits"))
    audit(loop.database, MODEL, registry)


@pytest.mark.parametrize("left", [2, 0])
def test_a_ledger_that_was_cut_does_not_hold(loop, registry, left):
    """Lines cut off at the end, or all of them, leave the chain of hashes whole, and the audit names what is gone."""
    path = registry.ledger.path
    lines = path.read_bytes().splitlines(keepends=True)
    last = registry.history()[-1].numbers["decision"]
    path.write_bytes(b"".join(lines[:left]))
    assert len(registry.history()) == left
    with pytest.raises(RegistryError, match=f"lacks decisions that were written into it: .*{last}.*restore it"):
        audit(loop.database, MODEL, registry)
