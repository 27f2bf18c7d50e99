"""The loop's state in a database: every step of it is one transaction, together with the decision that led to it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from loraloop.errors import StoreError
from loraloop.loop import schema, statistics
from loraloop.loop.cycle import ENDS, HAND, RETRAIN, WAYS, Cycle, Event, OutboxEntry
from loraloop.loop.lock import claim
from loraloop.loop.schema import cycles, decisions, rollouts, ticks
from loraloop.protocols import Database
from loraloop.records import Rollout


class MovedError(StoreError):
    """Another process took the cycle further meanwhile."""


class LoopStore:
    """Keeps cycles, rollouts and decisions. Methods may be called from any thread or process; each is one transaction.

    Args:
        database: That of the sessions; tables are made where they are missing.
        policy: Name of the policy in force, which every decision carries; ``None``: that of its cycle's beginning.
    """

    def __init__(self, database: Database, policy: str | None = None) -> None:
        self.database, self.policy = database, policy
        with database.write() as connection:
            schema.make(connection)

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
        """The role's cycle that is not over, if there is one."""
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

    def unended(self) -> list[Cycle]:
        """Every role's cycle that is not over."""
        with self.database.read() as connection:
            wanted = sa.select(cycles).where(cycles.c.ended.is_(None)).order_by(cycles.c.role)
            return [_cycle(row) for row in connection.execute(wanted)]

    def begin(self, role: str, model: str, champion: int, policy: str, *decided: Event) -> Cycle:
        """Begin a retraining.

        Raises:
            MovedError: The role has an open cycle.
        """
        with self.database.write() as connection:
            cycle = self._insert(connection, role, model, champion, policy, kind=RETRAIN, state="triggered")
            self._decide(connection, cycle, decided, cycle.began)
            return cycle

    def choose(
        self, role: str, model: str, champion: int, candidate: int, policy: str, share: float, decided: Event
    ) -> Cycle:
        """Begin a cycle with a version that a person chose, and give it a share of the conversations.

        Raises:
            MovedError: The role has an open cycle, or the model a running rollout; nothing was begun.
        """
        values = {"kind": HAND, "state": "registered", "candidate": candidate}
        with self.database.write() as connection:
            cycle = self._insert(connection, role, model, champion, policy, **values)
            return self._roll_out(connection, cycle, share, decided)

    def advance(self, cycle: Cycle, state: str, *decided: Event, **changes: Any) -> Cycle:
        """Take a cycle from the state that it was read in to the next, with the decisions that this follows from.

        A state of :data:`loraloop.loop.cycle.ENDS` also ends its rollout: from then on no session goes to the canary.

        Raises:
            MovedError: It is not in that state any more; nothing was changed.
        """
        if state not in WAYS.get(cycle.state, ()):
            raise ValueError(f"a cycle does not go from {cycle.state} to {state}")
        now = self.now()
        ended = now if state in ENDS else None
        with self.database.write() as connection:
            self._update(connection, cycle, state=state, changed=now, ended=ended, **changes)
            if ended and cycle.rollout:
                over = rollouts.update().where(rollouts.c.id == cycle.rollout, rollouts.c.ended.is_(None))
                connection.execute(over.values(ended=now))
            self._decide(connection, cycle, decided, now)
            return _read(connection, cycle.id)

    def roll_out(self, cycle: Cycle, share: float, decided: Event) -> Cycle:
        """Give a share of the conversations to a registered candidate.

        Raises:
            MovedError: The cycle moved on, or the model has a running rollout.
        """
        with self.database.write() as connection:
            return self._roll_out(connection, cycle, share, decided)

    def note(self, cycle: Cycle, **changes: Any) -> Cycle:
        """Keep a fact with a cycle that stays in its state.

        Raises:
            MovedError: It is not in that state any more.
        """
        with self.database.write() as connection:
            self._update(connection, cycle, changed=self.now(), **changes)
            return _read(connection, cycle.id)

    def judge(self, rollout: str, judged: Mapping[str, Any]) -> None:
        """Keep what the canary's rule said last, for the metrics."""
        with self.database.write() as connection:
            connection.execute(rollouts.update().where(rollouts.c.id == rollout).values(judged=dict(judged)))

    def decide(self, role: str, model: str, policy: str, decided: Event) -> str:
        """Keep a decision that is part of no cycle, such as a rollback by hand; its id."""
        now = self.now()
        with self.database.write() as connection:
            name = f"{role}-{secrets.token_hex(4)}/1-{decided.event}"
            facts = {"decision": name, "role": role, "policy": policy}
            connection.execute(decisions.insert(), _decision(name, role, model, None, decided, facts, now))
        return name

    def decided(self, model: str, event: str, since: str) -> bool:
        """Whether such a decision about a model was taken since then."""
        wanted = sa.select(decisions.c.id).where(
            decisions.c.model == model, decisions.c.event == event, decisions.c.time >= since
        )
        with self.database.read() as connection:
            return connection.scalar(wanted.limit(1)) is not None

    def untold(self, model: str) -> list[OutboxEntry]:
        """Decisions about a model that are not told everywhere yet, oldest first."""
        wanted = sa.select(decisions).where(~decisions.c.done, decisions.c.model == model).order_by(decisions.c.nth)
        with self.database.read() as connection:
            return [_pending(row) for row in connection.execute(wanted)]

    def told(self, pending: OutboxEntry, where: str, *, done: bool = False) -> None:
        """Note that a decision was told somewhere; after the last place it is ``done``."""
        with self.database.write() as connection:
            known = connection.scalar(sa.select(decisions.c.told).where(decisions.c.id == pending.id)) or []
            values = {"told": sorted({*known, where}), "done": done}
            connection.execute(decisions.update().where(decisions.c.id == pending.id).values(values))

    def ticked(self, role: str, model: str, *, intact: bool) -> None:
        """Note that a tick looked at a role, and whether its ledger held."""
        values = {"model": model, "time": self.now(), "intact": intact}
        with self.database.write() as connection:
            if not connection.execute(ticks.update().where(ticks.c.role == role).values(values)).rowcount:
                connection.execute(ticks.insert().values(role=role, **values))

    @contextmanager
    def claim(self, name: str, seconds: float = 0) -> Iterator[bool]:
        """Be the only one at work on ``name``; tells whether that could be had within ``seconds``.

        It ends with this process, however that ends.
        """
        with claim(self.database, name, seconds) as free:
            yield free

    @staticmethod
    def now() -> str:
        """The time, ISO 8601, UTC."""
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
            raise MovedError(f"{role} has a cycle already that is not over") from error
        return _read(connection, name)

    def _roll_out(self, connection: Connection, cycle: Cycle, share: float, decided: Event) -> Cycle:
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
        self._update(connection, cycle, state="canary", changed=now, rollout=made.id)
        try:
            connection.execute(rollouts.insert(), asdict(made))
        except IntegrityError as error:
            raise MovedError(f"{cycle.model} has a running rollout already: let that end first") from error
        self._decide(connection, _read(connection, cycle.id), [decided], now)
        return _read(connection, cycle.id)

    def _update(self, connection: Connection, cycle: Cycle, **values: Any) -> None:
        asked = cycles.update().where(cycles.c.id == cycle.id, cycles.c.state == cycle.state)
        if connection.execute(asked.values(values)).rowcount != 1:
            raise MovedError(f"{cycle.id} is not {cycle.state} any more: another process went on with it")

    def _decide(self, connection: Connection, cycle: Cycle, decided: Sequence[Event], now: str) -> None:
        mine = sa.select(sa.func.count()).where(decisions.c.cycle == cycle.id)
        count = connection.scalar(mine) or 0
        for nth, each in enumerate(decided, count + 1):
            name = f"{cycle.id}/{nth}-{each.event}"
            facts = {"decision": name, "role": cycle.role, "policy": self.policy or cycle.policy, "cycle": cycle.id}
            if cycle.rollout:
                facts["rollout"] = cycle.rollout
            connection.execute(decisions.insert(), _decision(name, cycle.role, cycle.model, cycle.id, each, facts, now))


def _of(role: str) -> sa.Select[Any]:
    return sa.select(cycles).where(cycles.c.role == role)


def _read(connection: Connection, id: str) -> Cycle:
    return _cycle(connection.execute(sa.select(cycles).where(cycles.c.id == id)).one())


def _cycle(row: Row[Any]) -> Cycle:
    return Cycle(**{each.name: getattr(row, each.name) for each in fields(Cycle)})


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(**{each.name: getattr(row, each.name) for each in fields(Rollout)})


def _decision(
    id: str, role: str, model: str, cycle: str | None, decided: Event, facts: Mapping[str, Any], now: str
) -> dict[str, Any]:
    numbers = {**decided.numbers, **facts, "decided": now}
    own = asdict(decided) | {"numbers": numbers}
    return own | {"id": id, "role": role, "model": model, "cycle": cycle, "time": now, "told": [], "done": False}


def _pending(row: Row[Any]) -> OutboxEntry:
    decided = Event(**{each.name: getattr(row, each.name) for each in fields(Event)})
    return OutboxEntry(
        id=row.id, role=row.role, model=row.model, cycle=row.cycle, decided=decided, told=tuple(row.told)
    )
