"""The loop's state in a database: each step is one transaction, which also holds the event that the step writes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from loraloop.core import transitions
from loraloop.core.transitions import ENDS, Transition
from loraloop.errors import StoreError
from loraloop.loop import schema, statistics
from loraloop.loop.cycle import HAND, RETRAIN, Cycle, Event, OutboxEntry
from loraloop.loop.lock import claim
from loraloop.loop.schema import cycles, decisions, rollouts, ticks
from loraloop.protocols import Database
from loraloop.records import Rollout


class MovedError(StoreError):
    """Another process has changed the cycle since it was read."""


class LoopStore:
    """Keeps cycles, rollouts and events. Methods may be called from any thread or process; each is one transaction.

    A step of a cycle has to be a row of :data:`loraloop.core.transitions.TABLE`. The row says the next state, whether
    the step ends the rollout, and whether people are alerted; any other step is a ``ValueError``.

    Args:
        database: The database of the sessions; missing tables are created.
        policy: Name of the policy in force, which every event carries; ``None``: the one that its cycle began under.
    """

    def __init__(self, database: Database, policy: str | None = None) -> None:
        self.database, self.policy = database, policy
        with database.write() as connection:
            schema.create(connection)

    def rollouts(self) -> list[Rollout]:
        """The rollouts that are running."""
        with self.database.read() as connection:
            return [_rollout(row) for row in connection.execute(sa.select(rollouts).where(rollouts.c.ended.is_(None)))]

    def stats(self) -> list[tuple[str, dict[str, str], float]]:
        """Name, labels and value of each of the loop's metrics."""
        with self.database.read() as connection:
            return statistics.read(connection)

    def rollout(self, id: str) -> Rollout:
        """A rollout, running or ended."""
        with self.database.read() as connection:
            return _rollout(connection.execute(sa.select(rollouts).where(rollouts.c.id == id)).one())

    def open(self, role: str) -> Cycle | None:
        """The role's open cycle; ``None`` if it has none."""
        with self.database.read() as connection:
            row = connection.execute(_of(role).where(cycles.c.ended.is_(None))).one_or_none()
        return None if row is None else _cycle(row)

    def cycle(self, id: str) -> Cycle:
        """A cycle as it is now."""
        with self.database.read() as connection:
            return _read(connection, id)

    def cycles(self, role: str) -> list[Cycle]:
        """Every cycle of a role, oldest first."""
        with self.database.read() as connection:
            return [_cycle(row) for row in connection.execute(_of(role).order_by(cycles.c.number))]

    def open_cycles(self) -> list[Cycle]:
        """The open cycles of all roles."""
        with self.database.read() as connection:
            wanted = sa.select(cycles).where(cycles.c.ended.is_(None)).order_by(cycles.c.role)
            return [_cycle(row) for row in connection.execute(wanted)]

    def begin(self, role: str, model: str, champion: int, policy: str, event: Event) -> Cycle:
        """Begin a retraining.

        Raises:
            MovedError: The role has an open cycle.
        """
        row = _row_of("idle", event)
        with self.database.write() as connection:
            cycle = self._insert(connection, role, model, champion, policy, kind=RETRAIN, state=row.target)
            self._record(connection, cycle, row, event, cycle.began)
            return cycle

    def choose(
        self, role: str, model: str, champion: int, candidate: int, policy: str, share: float, event: Event
    ) -> Cycle:
        """Begin a cycle with the rollout of a version that a person chose.

        Raises:
            MovedError: The role has an open cycle, or the model a running rollout; nothing was begun.
        """
        values = {"kind": HAND, "state": "registered", "candidate": candidate}
        row = _row_of("idle", event)
        with self.database.write() as connection:
            cycle = self._insert(connection, role, model, champion, policy, **values)
            return self._roll_out(connection, cycle, share, row, event)

    def advance(self, cycle: Cycle, *events: Event, **changes: Any) -> Cycle:
        """Take the step that follows from the cycle's state and the last of ``events``, and record the events.

        A step into a state of :data:`loraloop.core.transitions.ENDS` also ends the cycle's rollout: from then on no
        session goes to the candidate.

        Args:
            cycle: As it was read.
            events: None, one, or one after another.
            changes: Columns of the cycle that change with the step.

        Raises:
            MovedError: The cycle is no longer in that state; nothing was changed.
            ValueError: The table of transitions has no such step.
        """
        row = _row_of(cycle.state, *events)
        now = self.now()
        ended = now if row.target in ENDS else None
        with self.database.write() as connection:
            self._update(connection, cycle, state=row.target, changed=now, ended=ended, **changes)
            if ended and cycle.rollout:
                over = rollouts.update().where(rollouts.c.id == cycle.rollout, rollouts.c.ended.is_(None))
                connection.execute(over.values(ended=now))
            for event in events:
                self._record(connection, cycle, row, event, now)
            return _read(connection, cycle.id)

    def roll_out(self, cycle: Cycle, share: float, event: Event) -> Cycle:
        """Begin the rollout of a registered candidate.

        Raises:
            MovedError: The cycle is no longer in that state, or the model has a running rollout.
        """
        row = _row_of(cycle.state, event)
        with self.database.write() as connection:
            return self._roll_out(connection, cycle, share, row, event)

    def note(self, cycle: Cycle, **changes: Any) -> Cycle:
        """Change columns of a cycle that stays in its state.

        Raises:
            MovedError: It is no longer in that state.
        """
        with self.database.write() as connection:
            self._update(connection, cycle, changed=self.now(), **changes)
            return _read(connection, cycle.id)

    def keep_verdict(self, rollout: str, verdict: Mapping[str, Any]) -> None:
        """Keep the latest verdict of the canary's rule, for the metrics."""
        with self.database.write() as connection:
            connection.execute(rollouts.update().where(rollouts.c.id == rollout).values(judged=dict(verdict)))

    def record(self, role: str, model: str, policy: str, event: Event) -> str:
        """Record an event that belongs to no cycle, such as a rollback by hand; its id."""
        row, now = _row_of("idle", event), self.now()
        with self.database.write() as connection:
            name = f"{role}-{secrets.token_hex(4)}/1-{event.name}"
            facts = {"decision": name, "role": role, "policy": policy}
            connection.execute(decisions.insert(), _values(name, role, model, None, row, event, facts, now))
        return name

    def recorded(self, model: str, event: str, since: str) -> bool:
        """Whether an event of that name was recorded for a model since a time."""
        wanted = sa.select(decisions.c.id).where(
            decisions.c.model == model, decisions.c.event == event, decisions.c.time >= since
        )
        with self.database.read() as connection:
            return connection.scalar(wanted.limit(1)) is not None

    def unpublished(self, model: str) -> list[OutboxEntry]:
        """A model's events that are not published everywhere yet, oldest first."""
        wanted = sa.select(decisions).where(~decisions.c.done, decisions.c.model == model).order_by(decisions.c.nth)
        with self.database.read() as connection:
            return [_entry(row) for row in connection.execute(wanted)]

    def mark_published(self, entry: OutboxEntry, where: str, *, done: bool = False) -> None:
        """Note that an event was published somewhere; ``done`` after the last place."""
        with self.database.write() as connection:
            known = connection.scalar(sa.select(decisions.c.told).where(decisions.c.id == entry.id)) or []
            values = {"told": sorted({*known, where}), "done": done}
            connection.execute(decisions.update().where(decisions.c.id == entry.id).values(values))

    def ticked(self, role: str, model: str, *, intact: bool) -> None:
        """Note the time of a role's tick, and whether its ledger was intact."""
        values = {"model": model, "time": self.now(), "intact": intact}
        with self.database.write() as connection:
            if not connection.execute(ticks.update().where(ticks.c.role == role).values(values)).rowcount:
                connection.execute(ticks.insert().values(role=role, **values))

    @contextmanager
    def claim(self, name: str, seconds: float = 0) -> Iterator[bool]:
        """Hold the claim ``name``, which one process has at a time; yields whether it was free within ``seconds``.

        It ends with this process, however that ends.
        """
        with claim(self.database, name, seconds) as free:
            yield free

    @staticmethod
    def now() -> str:
        """The present time, ISO 8601, UTC."""
        return datetime.now(UTC).isoformat(timespec="milliseconds")

    def _insert(
        self, connection: Connection, role: str, model: str, champion: int, policy: str, **values: Any
    ) -> Cycle:
        now = self.now()
        last = connection.scalar(sa.select(sa.func.max(cycles.c.number)).where(cycles.c.role == role)) or 0
        name = f"{role}-{last + 1}-{secrets.token_hex(3)}"
        values |= {"id": name, "role": role, "number": last + 1, "model": model, "champion": champion}
        values |= {"policy": policy, "attempts": 0, "began": now, "changed": now}
        try:
            connection.execute(cycles.insert().values(values))
        except IntegrityError as error:
            raise MovedError(f"{role} has an open cycle already: wait until it is over, or end its rollout") from error
        return _read(connection, name)

    def _roll_out(self, connection: Connection, cycle: Cycle, share: float, row: Transition, event: Event) -> Cycle:
        now = self.now()
        made = Rollout(
            id=f"{cycle.id}-canary",
            role=cycle.role,
            model=cycle.model,
            stable=cycle.champion,
            canary=int(cycle.candidate or 0),
            share=share,
            began=now,
        )
        self._update(connection, cycle, state=row.target, changed=now, rollout=made.id)
        try:
            connection.execute(rollouts.insert(), asdict(made))
        except IntegrityError as error:
            raise MovedError(f"{cycle.model} has a running rollout already: end it first") from error
        self._record(connection, _read(connection, cycle.id), row, event, now)
        return _read(connection, cycle.id)

    def _update(self, connection: Connection, cycle: Cycle, **values: Any) -> None:
        wanted = cycles.update().where(cycles.c.id == cycle.id, cycles.c.state == cycle.state)
        if connection.execute(wanted.values(values)).rowcount != 1:
            raise MovedError(f"{cycle.id} is no longer {cycle.state}: another process has changed it")

    def _record(self, connection: Connection, cycle: Cycle, row: Transition, event: Event, now: str) -> None:
        mine = sa.select(sa.func.count()).where(decisions.c.cycle == cycle.id)
        name = f"{cycle.id}/{(connection.scalar(mine) or 0) + 1}-{event.name}"
        facts = {"decision": name, "role": cycle.role, "policy": self.policy or cycle.policy, "cycle": cycle.id}
        if cycle.rollout:
            facts["rollout"] = cycle.rollout
        values = _values(name, cycle.role, cycle.model, cycle.id, row, event, facts, now)
        connection.execute(decisions.insert(), values)


def _row_of(state: str, *events: Event) -> Transition:
    """The table's row for a step. No step has more than two events."""
    if not events:
        return transitions.find(state, None)
    *before, last = events
    preceded_by = ", ".join(each.name for each in before) or None
    return transitions.find(state, last.name, alias=last.alias is not None, preceded_by=preceded_by)


def _of(role: str) -> sa.Select[Any]:
    return sa.select(cycles).where(cycles.c.role == role)


def _read(connection: Connection, id: str) -> Cycle:
    return _cycle(connection.execute(sa.select(cycles).where(cycles.c.id == id)).one())


def _cycle(row: Row[Any]) -> Cycle:
    return Cycle(**{each.name: getattr(row, each.name) for each in fields(Cycle)})


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(**{each.name: getattr(row, each.name) for each in fields(Rollout)})


def _values(
    id: str,
    role: str,
    model: str,
    cycle: str | None,
    row: Transition,
    event: Event,
    facts: Mapping[str, Any],
    now: str,
) -> dict[str, Any]:
    """The columns of a new event, which is published nowhere yet."""
    return {
        "id": id,
        "role": role,
        "model": model,
        "cycle": cycle,
        "event": event.name,
        "version": event.version,
        "reason": event.reason,
        "numbers": {**event.numbers, **facts, "decided": now},
        "alias": event.alias,
        "alert": row.alert and event.name == row.event,
        "time": now,
        "told": [],
        "done": False,
    }


def _entry(row: Row[Any]) -> OutboxEntry:
    event = Event(name=row.event, version=row.version, reason=row.reason, numbers=row.numbers, alias=row.alias)
    return OutboxEntry(
        id=row.id,
        role=row.role,
        model=row.model,
        cycle=row.cycle,
        event=event,
        alert=row.alert,
        published=tuple(row.told),
    )
