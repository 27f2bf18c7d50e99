"""Every decision is told to the ledger, the tracker and people: each once, in order, whatever ends the process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from loraloop.errors import ArtefactError, StoreError, TrackingError, UnknownVersionError
from loraloop.loop.cycle import Cycle, Event, OutboxEntry
from loraloop.loop.store import LoopStore
from loraloop.protocols import Alerts, Run, Tracker

if TYPE_CHECKING:
    from loraloop.registry.mlflow import MlflowRegistry

WAIT_SECONDS = 60
LEDGER, TRACKER, ALERTS = "ledger", "tracker", "alerts"
REFUSE = "refuse"
OVER = ("promote", "rollback", "stop")
"""Decisions that end the rollout of the version that they are about."""
TRIED = "canary"
"""The alias of the version that a rollout is about."""
FROM = "from"
"""The number that says which version an alias is moved away from."""


class Outbox:
    """Takes decisions from the loop's tables to where they are told (a transactional outbox).

    The ledger takes a decision exactly once: its id stands in the entry, and is looked for before it is written. Tags
    of a run are the same when they are set twice. An alert may come twice after a crash, and never not at all.

    A decision that cannot be carried out any more goes into the ledger as ``refuse``, and holds up nothing after it.

    Args:
        store: Where decisions wait.
        model: The registered model that they are about.
        registry: Its registry.
        tracker: Keeps one run per cycle.
        alerts: Tells people.
    """

    def __init__(
        self, store: LoopStore, model: str, registry: MlflowRegistry, tracker: Tracker, alerts: Alerts
    ) -> None:
        self.store, self.model, self.registry = store, model, registry
        self.tracker, self.alerts = tracker, alerts

    def publish(self) -> None:
        """Tell what has not been told yet.

        Raises:
            StoreError: Another process has been telling for too long.
            RegistryError: The ledger or the registry cannot be written; what is left is told by the next call.
            TrackingError: The tracker cannot be used, likewise.
        """
        with self._alone() as waiting:
            self._to_ledger(waiting)
            for each in waiting:
                if each.decided.alert and ALERTS not in each.told:
                    event, reason = self.entered(each.id) or (each.decided.event, each.decided.reason)
                    self.alerts.send(f"loraloop {each.role}: {event}", reason)
                    self.store.told(each, ALERTS)
            for cycle, group in groupby(waiting, lambda each: each.cycle):
                self._to_tracker(cycle, list(group))

    def enter(self) -> None:
        """Carry out and write into the ledger what is not there yet.

        Raises:
            StoreError: Another process has been telling for too long.
            RegistryError: The ledger or the registry cannot be written; what is left is entered by the next call.
        """
        with self._alone() as waiting:
            self._to_ledger(waiting)

    def entered(self, id: str) -> tuple[str, str] | None:
        """Event and reason with which a decision stands in the ledger, if it does."""
        found = (each for each in self.registry.history() if each.numbers.get("decision") == id)
        return next(((each.event, each.reason) for each in found), None)

    @contextmanager
    def _alone(self) -> Iterator[list[OutboxEntry]]:
        """What waits, while nobody else tells it."""
        if not self.store.untold(self.model):
            yield []
            return
        with self.store.claim(f"tell {self.model}", WAIT_SECONDS) as free:
            if not free:
                raise StoreError(f"another process has been telling decisions about {self.model} for {WAIT_SECONDS} s")
            yield self.store.untold(self.model)

    def _to_ledger(self, waiting: Sequence[OutboxEntry]) -> None:
        new = [each for each in waiting if LEDGER not in each.told]
        known = {entry.numbers.get("decision") for entry in self.registry.history()} if new else set()
        for each in new:
            if each.id not in known:
                self._enter(each)
            self.store.told(each, LEDGER)

    def _enter(self, pending: OutboxEntry) -> None:
        """Carry out what the decision asks of the registry, and write it down."""
        decided = pending.decided
        if decided.event in OVER and decided.version is not None:
            self.registry.release(TRIED, decided.version, f"its rollout is over: {decided.event}")
        if decided.alias is None or decided.version is None:
            self.registry.record(decided.event, decided.version, decided.reason, decided.numbers)
            return
        try:
            self.registry.resolve(str(decided.version))  # also enters what was done to aliases without an entry
        except (ArtefactError, UnknownVersionError) as error:
            self._refuse(decided, str(error))
            return
        moves = [entry.version for entry in self.registry.history() if entry.alias == decided.alias]
        at = moves[-1] if moves else None
        if at == decided.version:  # it was moved, and the process ended before the entry
            self.registry.record(decided.event, decided.version, decided.reason, decided.numbers)
        elif at == decided.numbers.get(FROM, at):
            self.registry.promote(decided.version, decided.alias, decided.reason, decided.event, decided.numbers)
        else:  # what it was decided on is over, and the next step says so
            self._refuse(decided, f"the alias {decided.alias} was moved meanwhile, to {at or 'nowhere'}")

    def _refuse(self, decided: Event, why: str) -> None:
        reason = f"the {decided.event} of version {decided.version} was not carried out: {why}"
        self.registry.record(REFUSE, decided.version, reason, decided.numbers)

    def _to_tracker(self, id: str | None, waiting: Sequence[OutboxEntry]) -> None:
        if id is not None:
            cycle = self.store.cycle(id)
            name = f"loop-{cycle.id}"
            with self.tracker.start(name, resume=cycle.run or interrupted(self.tracker, name)) as run:
                if cycle.run is None and run.id is not None:
                    cycle = self.store.note(cycle, run=run.id)
                _show(run, cycle, waiting)
        for each in waiting:
            self.store.told(each, TRACKER, done=True)


def interrupted(tracker: Tracker, name: str) -> str | None:
    """The run of that unique name that a process began before it ended, if there is one."""
    try:
        return str(tracker.read(name)["id"])
    except TrackingError:
        return None


def _show(run: Run, cycle: Cycle, waiting: Sequence[OutboxEntry]) -> None:
    tags = {"loop.role": cycle.role, "loop.policy": cycle.policy, "loop.state": cycle.state}
    for each in waiting:
        tags[f"decision.{each.id.rpartition('/')[2]}"] = each.decided.reason
        run.metrics(dict(_numbers(each.decided.numbers, f"{each.decided.event}/")))
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
