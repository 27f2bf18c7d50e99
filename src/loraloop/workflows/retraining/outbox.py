"""The outbox: publishes each event of the loop to ledger, tracker and people, in order, also after a crash."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from loraloop.core.transitions import CANARY, ROLLOUT_OVER
from loraloop.errors import ArtefactError, StoreError, TrackingError, UnknownVersionError
from loraloop.loop.cycle import Cycle, Event, OutboxEntry
from loraloop.loop.store import LoopStore
from loraloop.protocols import Alerts, Run, Tracker

if TYPE_CHECKING:
    from loraloop.registry.mlflow import MlflowRegistry

WAIT_SECONDS = 60
LEDGER, TRACKER, ALERTS = "ledger", "tracker", "alerts"
REFUSE = "refuse"
FROM = "from"
"""The number of an event that says which version its alias is moved away from."""


class Outbox:
    """Publishes the recorded events of one model (a transactional outbox).

    The ledger takes an event exactly once: the entry holds the event's id, which is looked up before it is written. The
    tracker's tags are the same when they are set twice. After a crash an alert may be sent a second time; none is lost.

    An event that can no longer be carried out is entered as ``refuse``; later events are published all the same.

    Args:
        store: Where the events are recorded.
        model: The registered model that they are about.
        registry: The registry of that model.
        tracker: Keeps one run per cycle.
        alerts: Where people are alerted.
    """

    def __init__(
        self, store: LoopStore, model: str, registry: MlflowRegistry, tracker: Tracker, alerts: Alerts
    ) -> None:
        self.store, self.model, self.registry = store, model, registry
        self.tracker, self.alerts = tracker, alerts

    def publish(self) -> None:
        """Publish what is not published yet.

        Raises:
            StoreError: Another process has been publishing for too long.
            RegistryError: Ledger or registry cannot be written; the next call publishes the rest.
            TrackingError: The tracker cannot be used; likewise.
        """
        with self._claimed() as waiting:
            self._to_ledger(waiting)
            for each in waiting:
                if each.alert and ALERTS not in each.published:
                    name, reason = self.entered(each.id) or (each.event.name, each.event.reason)
                    self.alerts.send(f"loraloop {each.role}: {name}", reason)
                    self.store.mark_published(each, ALERTS)
            for cycle, group in groupby(waiting, lambda each: each.cycle):
                self._to_tracker(cycle, list(group))

    def enter(self) -> None:
        """Carry out and enter into the ledger what is not there yet; alerts and tracker have to wait.

        Raises:
            StoreError: Another process has been publishing for too long.
            RegistryError: Ledger or registry cannot be written; the next call enters the rest.
        """
        with self._claimed() as waiting:
            self._to_ledger(waiting)

    def entered(self, id: str) -> tuple[str, str] | None:
        """Name and reason of an event as the ledger has them; ``None`` if it is not there."""
        found = (each for each in self.registry.history() if each.numbers.get("decision") == id)
        return next(((each.event, each.reason) for each in found), None)

    @contextmanager
    def _claimed(self) -> Iterator[list[OutboxEntry]]:
        """What waits, while no other process publishes it."""
        if not self.store.unpublished(self.model):
            yield []
            return
        with self.store.claim(f"tell {self.model}", WAIT_SECONDS) as free:
            if not free:
                raise StoreError(
                    f"another process has been publishing events of {self.model} for {WAIT_SECONDS} s: run this again "
                    "when it is done"
                )
            yield self.store.unpublished(self.model)

    def _to_ledger(self, waiting: Sequence[OutboxEntry]) -> None:
        new = [each for each in waiting if LEDGER not in each.published]
        known = {entry.numbers.get("decision") for entry in self.registry.history()} if new else set()
        for each in new:
            if each.id not in known:
                self._enter(each.event)
            self.store.mark_published(each, LEDGER)

    def _enter(self, event: Event) -> None:
        """Move the event's alias, if it has one, and write the entry."""
        if event.name in ROLLOUT_OVER and event.version is not None:
            self.registry.release(CANARY, event.version, f"its rollout is over: {event.name}")
        if event.alias is None or event.version is None:
            self.registry.record(event.name, event.version, event.reason, event.numbers)
            return
        try:
            self.registry.resolve(str(event.version))  # also enters moves of aliases that have no entry yet
        except (ArtefactError, UnknownVersionError) as error:
            self._refuse(event, str(error))
            return
        moves = [entry.version for entry in self.registry.history() if entry.alias == event.alias]
        at = moves[-1] if moves else None
        if at == event.version:  # a process moved it and ended before the entry
            self.registry.record(event.name, event.version, event.reason, event.numbers)
        elif at == event.numbers.get(FROM, at):
            self.registry.promote(event.version, event.alias, event.reason, event.name, event.numbers)
        else:  # somebody else moved the alias since the decision
            self._refuse(event, f"the alias {event.alias} was moved meanwhile, to {at or 'no version'}")

    def _refuse(self, event: Event, why: str) -> None:
        reason = f"the {event.name} of version {event.version} was not carried out: {why}"
        self.registry.record(REFUSE, event.version, reason, event.numbers)

    def _to_tracker(self, id: str | None, waiting: Sequence[OutboxEntry]) -> None:
        if id is not None:
            cycle = self.store.cycle(id)
            name = f"loop-{cycle.id}"
            with self.tracker.start(name, resume=cycle.run or interrupted(self.tracker, name)) as run:
                if cycle.run is None and run.id is not None:
                    cycle = self.store.note(cycle, run=run.id)
                _log_events(run, cycle, waiting)
        for each in waiting:
            self.store.mark_published(each, TRACKER, done=True)


def interrupted(tracker: Tracker, name: str) -> str | None:
    """Id of the run of that unique name which an earlier process began; ``None`` if there is none."""
    try:
        return str(tracker.read(name)["id"])
    except TrackingError:
        return None


def _log_events(run: Run, cycle: Cycle, waiting: Sequence[OutboxEntry]) -> None:
    tags = {"loop.role": cycle.role, "loop.policy": cycle.policy, "loop.state": cycle.state}
    for each in waiting:
        tags[f"decision.{each.id.rpartition('/')[2]}"] = each.event.reason
        run.metrics(dict(_numbers(each.event.numbers, f"{each.event.name}/")))
    run.tags(tags)


def _numbers(values: Mapping[str, Any], path: str) -> list[tuple[str, float]]:
    """The finite numbers among ``values``, with the path to each."""
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            found.append((f"{path}{key}", float(value)))
    return found
