"""Each event is entered into the ledger once, also where somebody else moved the alias first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from loraloop.errors import ArtefactError, RegistryError
from loraloop.loop.cycle import Event
from loraloop.registry.ledger import Ledger
from loraloop.tracker.none import NoTracker
from loraloop.workflows.retraining.outbox import FROM, Outbox

MODEL = "loraloop-ocr"
ROLLBACK = Event(name="rollback", version=2, reason="by hand", numbers={FROM: 1}, alias="champion")
TRIGGER = Event(name="trigger", version=1, reason="low")


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
    """A desk on which version 1 is the champion."""
    made = Desk(Ledger(tmp_path / "ledger.jsonl"))
    made.ledger.append("promote", 1, "by hand", alias="champion")
    return made


@pytest.fixture
def outbox(loop: Any, desk: Desk) -> Outbox:
    """The outbox of that desk's model."""
    return Outbox(loop, MODEL, desk, NoTracker(), desk)  # type: ignore[arg-type]


def test_an_event_that_moves_an_alias_is_one_entry(outbox, desk, loop):
    """A rollback is carried out, entered and alerted once; publishing a second time adds nothing."""
    loop.record("validator", MODEL, "default", ROLLBACK)
    outbox.publish()
    outbox.publish()
    assert desk.events() == [("promote", 1), ("rollback", 2)]
    assert desk.alerts == [("loraloop validator: rollback", "by hand")]
    assert loop.unpublished(MODEL) == []


def test_an_alias_that_was_moved_without_its_entry_gets_it(outbox, desk, loop):
    """After a crash between alias and ledger the event is entered once, after the entry of the observed move."""
    loop.record("validator", MODEL, "default", ROLLBACK)
    desk.champion = 2
    outbox.publish()
    outbox.publish()
    assert desk.events() == [("promote", 1), ("observed", 2), ("rollback", 2)]
    assert [entry.numbers.get("decision") for entry in desk.history()][2] is not None


def test_an_alias_that_somebody_else_moved_stays_there(outbox, desk, loop):
    """A rollback that was decided against version 1 does not replace version 3; ledger and people are told so."""
    name = loop.record("validator", MODEL, "default", ROLLBACK)
    desk.champion = 3
    outbox.publish()
    assert desk.champion == 3
    assert desk.events() == [("promote", 1), ("observed", 3), ("refuse", 2)]
    said = "the rollback of version 2 was not carried out: the alias champion was moved meanwhile, to 3"
    assert outbox.entered(name) == ("refuse", said)
    assert desk.alerts == [("loraloop validator: refuse", said)]
    assert loop.unpublished(MODEL) == []


def test_a_version_that_is_gone_blocks_nothing(outbox, desk, loop):
    """An event about a version whose files are gone is entered as refused, moves no alias, and blocks nothing."""
    loop.record("validator", MODEL, "default", ROLLBACK)
    loop.begin("validator", MODEL, 1, "default", TRIGGER)
    desk.gone = True
    outbox.publish()
    assert desk.champion == 1
    assert desk.events() == [("promote", 1), ("refuse", 2), ("trigger", 1)]
    assert loop.unpublished(MODEL) == []


def test_what_the_ledger_did_not_take_is_published_later(outbox, desk, loop):
    """A ledger that cannot be written stops publishing; the next call goes on in the order of the events."""
    cycle = loop.begin("validator", MODEL, 1, "default", TRIGGER)
    loop.advance(cycle, Event(name="refuse", version=None, reason="few"))
    desk.away = True
    with pytest.raises(RegistryError):
        outbox.publish()
    desk.away = False
    outbox.publish()
    assert desk.events() == [("promote", 1), ("trigger", 1), ("refuse", None)]
    assert desk.alerts == [("loraloop validator: refuse", "few")]


def test_events_of_other_models_wait_for_their_own_outbox(outbox, desk, loop):
    """Each model has its own ledger: nothing of another one is entered here."""
    loop.begin("actor", "loraloop-action", 1, "default", TRIGGER)
    outbox.publish()
    assert desk.events() == [("promote", 1)]
    assert len(loop.unpublished("loraloop-action")) == 1
