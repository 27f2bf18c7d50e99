"""The loop's tables show that a ledger was cut."""

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
    """Alerts that go nowhere."""

    def send(self, title: str, text: str) -> None:
        """Nothing happens."""


def begun(loop: Any, role: str, model: str) -> Any:
    """A cycle with the event that began it."""
    return loop.begin(role, model, 1, "default", Event(name="trigger", version=None, reason="low"))


@pytest.fixture
def registry(loop: Any, tmp_path: Path) -> MlflowRegistry:
    """A registry with two of the loop's events in its ledger."""
    made = MlflowRegistry(name=MODEL, folder=tmp_path / "mlruns")
    made.ledger.append("register", 1, "by hand", alias="candidate")
    loop.advance(begun(loop, "validator", MODEL), Event(name="refuse", version=None, reason="few"))
    Outbox(loop, MODEL, made, NoTracker(), Nobody()).publish()
    return made


def test_a_whole_ledger_holds(loop, registry):
    """A ledger with every event that was entered passes; waiting events and those of other models are not missed."""
    begun(loop, "validator", MODEL)
    begun(loop, "judge", "loraloop-judge")
    audit(loop.database, MODEL, registry)


@pytest.mark.parametrize("left", [2, 0])
def test_a_ledger_that_was_cut_does_not_hold(loop, registry, left):
    """Lines cut off at the end, or all of them, leave the chain of hashes intact; the audit names what is missing."""
    path = registry.ledger.path
    lines = path.read_bytes().splitlines(keepends=True)
    last = registry.history()[-1].numbers["decision"]
    path.write_bytes(b"".join(lines[:left]))
    assert len(registry.history()) == left
    with pytest.raises(RegistryError, match=f"lacks decisions that were written into it: .*{last}.*restore it"):
        audit(loop.database, MODEL, registry)
