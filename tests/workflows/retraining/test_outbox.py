"""What was decided is told in the ledger once, also where somebody was faster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from loraloop.errors import ArtefactError, RegistryError
from loraloop.loop.cycle import Event
from loraloop.registry.ledger import Ledger
from loraloop.tracker.none import NoTracker
from loraloop.workflows.retraining.outbox import FROM, Outbox

MODEL = "loraloop-ocr"
PROMOTE = Event(event="promote", version=2, reason="it won", numbers={FROM: 1}, alias="champion")


@dataclass
class Desk:
    """A registry without adapters: a real ledger, and the alias as MLflow would keep it."""

    ledger: Ledger
    champion: int = 1
    away: bool = False
    gone: bool = False
    alerts: list[tuple[str, str]] = field(default_factory=list)

    def resolve(self, reference: str) -> Any:
        """Enter what was done without an entry, as the registry does when it looks at aliases."""
        if self.gone:
            raise ArtefactError("its folder is gone")
        if self.ledger.aliases().get("champion") != self.champion:
            self.ledger.append("observed", self.champion, "moved without an entry", alias="champion")

    def record(self, event: str, number: int | None, reason: str, numbers: Mapping[str, Any]) -> None:
        """Append an event."""
        if self.away:
            raise RegistryError("the disk is full")
        self.ledger.append(event, number, reason, numbers=numbers)

    def promote(self, number: int, alias: str, reason: str, event: str, numbers: Mapping[str, Any]) -> None:
        """Move the alias."""
        self.champion = number
        self.ledger.append(event, number, reason, alias=alias, numbers=numbers)

    def release(self, alias: str, number: int, reason: str) -> None:
        """Take an alias away."""
        if self.ledger.aliases().get(alias) == number:
            self.ledger.append("release", None, reason, alias=alias)

    def history(self) -> list[Any]:
        """Every entry."""
        self.ledger.verify()
        return self.ledger.entries()

    def send(self, title: str, text: str) -> None:
        """Keep an alert."""
        self.alerts.append((title, text))

    def events(self) -> list[tuple[str, int | None]]:
        """What stands in the ledger."""
        return [(entry.event, entry.version) for entry in self.ledger.entries()]


@pytest.fixture
def desk(tmp_path: Any) -> Desk:
    """A desk on which version 1 reigns."""
    made = Desk(Ledger(tmp_path / "ledger.jsonl"))
    made.ledger.append("promote", 1, "by hand", alias="champion")
    return made


@pytest.fixture
def telling(loop: Any, desk: Desk) -> Outbox:
    """What tells to that desk."""
    return Outbox(loop, MODEL, desk, NoTracker(), desk)  # type: ignore[arg-type]


def test_a_decision_that_moves_an_alias_is_one_entry(telling, desk, loop):
    """A promotion is carried out and entered at once, and a second telling adds nothing."""
    loop.decide("validator", MODEL, "default", replace(PROMOTE, alert=True))
    telling.publish()
    telling.publish()
    assert desk.events() == [("promote", 1), ("promote", 2)]
    assert desk.alerts == [("loraloop validator: promote", "it won")]
    assert loop.untold(MODEL) == []


def test_an_alias_that_was_moved_without_its_entry_gets_it(telling, desk, loop):
    """After a crash between alias and ledger the decision is entered once, beside what was observed."""
    loop.decide("validator", MODEL, "default", PROMOTE)
    desk.champion = 2
    telling.publish()
    telling.publish()
    assert desk.events() == [("promote", 1), ("observed", 2), ("promote", 2)]
    assert [entry.numbers.get("decision") for entry in desk.history()][2] is not None


def test_an_alias_that_somebody_else_moved_stays_there(telling, desk, loop):
    """A promotion that was decided on against version 1 is not carried out over version 3, and all are told that."""
    name = loop.decide("validator", MODEL, "default", replace(PROMOTE, alert=True))
    desk.champion = 3
    telling.publish()
    assert desk.champion == 3
    assert desk.events() == [("promote", 1), ("observed", 3), ("refuse", 2)]
    said = "the promote of version 2 was not carried out: the alias champion was moved meanwhile, to 3"
    assert telling.entered(name) == ("refuse", said)
    assert desk.alerts == [("loraloop validator: refuse", said)]
    assert loop.untold(MODEL) == []


def test_a_version_that_is_gone_holds_nothing_up(telling, desk, loop):
    """A version whose files are gone is refused in the ledger, no alias moves, and what comes after it is told."""
    loop.decide("validator", MODEL, "default", PROMOTE)
    loop.decide("validator", MODEL, "default", Event(event="stop", version=None, reason="over"))
    desk.gone = True
    telling.publish()
    assert desk.champion == 1
    assert desk.events() == [("promote", 1), ("refuse", 2), ("stop", None)]
    assert loop.untold(MODEL) == []


def test_what_the_ledger_did_not_take_is_told_later(telling, desk, loop):
    """A ledger that cannot be written stops the telling; the next one goes on, in the order of the decisions."""
    cycle = loop.begin("validator", MODEL, 1, "default", Event(event="trigger", version=1, reason="low"))
    loop.advance(cycle, "refused", Event(event="refuse", version=None, reason="few", alert=True))
    desk.away = True
    with pytest.raises(RegistryError):
        telling.publish()
    desk.away = False
    telling.publish()
    assert desk.events() == [("promote", 1), ("trigger", 1), ("refuse", None)]
    assert desk.alerts == [("loraloop validator: refuse", "few")]


def test_decisions_of_other_models_wait_for_their_own_telling(telling, desk, loop):
    """Each model has its own ledger: nothing of another one is entered here."""
    loop.begin("actor", "loraloop-action", 1, "default", Event(event="trigger", version=1, reason="low"))
    telling.publish()
    assert desk.events() == [("promote", 1)]
    assert len(loop.untold("loraloop-action")) == 1
