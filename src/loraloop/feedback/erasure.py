"""Sessions out of the database for good: with their ratings, corrections and signals, batch by batch."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from loraloop.feedback.schema import conversation_ratings, corrections, erased, next_turns, ratings, sessions
from loraloop.feedback.store import BATCH, Store
from loraloop.records import Session

OF_SESSION = (ratings, corrections, next_turns)
"""Tables whose rows are about one session."""
LISTED = 8
"""Names that are shown where none of them was meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which sessions are meant: those for which everything that is given holds; without anything, none.

    Attributes:
        client: Who asked, as sessions name it.
        key: Name of the API key that they came with.
        conversation: Its id, its client's name for it, or the id of one of its answers.
        before: ISO 8601, UTC: those that were asked for earlier; without a time they are not.
    """

    client: str | None = None
    key: str | None = None
    conversation: str | None = None
    before: str | None = None

    @property
    def _conditions(self) -> list[sa.ColumnElement[bool]]:
        table, found = sessions.c, []
        if self.client is not None:
            found.append(table.client == self.client)
        if self.key is not None:
            found.append(table.asked_key == self.key)
        if self.conversation is not None:
            of = sa.select(table.conversation_id).where(table.id == self.conversation)
            named = (table.conversation_id == self.conversation) | (table.conversation == self.conversation)
            found.append(named | (table.id == self.conversation) | table.conversation_id.in_(of))
        if self.before is not None:
            found.append(table.time < self.before)
        return found

    def ids(self, store: Store) -> list[str]:
        """Their ids, in order."""
        conditions = self._conditions
        if not conditions:
            return []
        with store.database.read() as connection:
            return list(connection.scalars(sa.select(sessions.c.id).where(*conditions).order_by(sessions.c.id)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What there is of sessions, or was until it was erased."""

    sessions: int = 0
    ratings: int = 0
    corrections: int = 0
    signals: int = 0

    def __add__(self, other: Counted) -> Counted:
        names = self.__dataclass_fields__
        return Counted(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, name)} {name}" for name in self.__dataclass_fields__)


def near(store: Store, name: str, asked: str) -> tuple[list[str], int]:
    """Clients, keys or conversations that there are, at most :data:`LISTED`, those like ``asked`` first; and the count.

    Args:
        store: Of the sessions.
        name: ``client``, ``key`` or ``conversation``.
        asked: What was looked for.
    """
    column = {"client": sessions.c.client, "key": sessions.c.asked_key, "conversation": sessions.c.conversation}[name]
    with store.database.read() as connection:
        there = list(connection.scalars(sa.select(column).where(column.is_not(None)).distinct().order_by(column)))
    lower = {each.lower(): each for each in reversed(there)}
    like = [lower[each] for each in difflib.get_close_matches(asked.lower(), lower, n=LISTED)]
    return [*like, *(each for each in there if each not in like)][:LISTED], len(there)


def older_than(days: float) -> Chosen:
    """The sessions that were asked for more than ``days`` ago."""
    return Chosen(before=(datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds"))


def erase(store: Store, ids: Sequence[str]) -> Counted:
    """Erase sessions, and everything that is kept about them; those that are gone already are not counted.

    A batch is one transaction: after a crash the rest is there whole. Only the ids stay, so that no import brings a
    session back, and exports that hold one can be found later.

    Raises:
        StoreError: The database cannot be used; what was erased stays erased.
    """
    total = sum((store.write(partial(_erase, batch)) for batch in _batches(ids)), Counted())
    if total.sessions:
        store.database.compact()
    return total


def count(store: Store, ids: Sequence[str]) -> Counted:
    """What :func:`erase` would erase, where no conversation is chosen in part."""
    total, of = Counted(), sessions.c.conversation_id
    with store.database.read() as connection:
        ended: set[str] = set()
        for batch in _batches(ids):
            rated = sa.select(of).join(conversation_ratings, conversation_ratings.c.conversation == of)
            ended.update(connection.scalars(rated.where(sessions.c.id.in_(batch))))
            total += _count(batch, connection)
    return total + Counted(ratings=len(ended))


def texts(store: Store, ids: Sequence[str]) -> Iterator[str]:
    """Every text of what was asked in these sessions."""
    for batch in _batches(ids):
        with store.database.read() as connection:
            prompts = list(connection.scalars(sa.select(sessions.c.prompt).where(sessions.c.id.in_(batch))))
        for prompt in prompts:
            yield from (text for _, text in Session(id="", prompt=prompt).turns)


def known(store: Store) -> frozenset[str]:
    """Ids of every session that was erased."""
    with store.database.read() as connection:
        return frozenset(connection.scalars(sa.select(erased.c.session)))


def known_count(store: Store) -> int:
    """How many sessions were ever erased."""
    with store.database.read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(erased)) or 0)


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _erase(ids: Sequence[str], connection: Connection) -> Counted:
    mine = sessions.c.id.in_(ids)
    # Locked: a rating that comes meanwhile waits, and then finds no session.
    chosen = sa.select(sessions.c.id, sessions.c.conversation_id).where(mine).order_by(sessions.c.id).with_for_update()
    there = connection.execute(chosen).all()
    found = _count([row.id for row in there], connection)
    if not there:
        return found
    for table in OF_SESSION:
        connection.execute(table.delete().where(table.c.session.in_([row.id for row in there])))
    connection.execute(sessions.delete().where(mine))
    of = conversation_ratings.c.conversation
    rest = sa.select(sessions.c.id).where(sessions.c.conversation_id == of)
    gone = of.in_({row.conversation_id or row.id for row in there}) & ~rest.exists()
    ended = connection.execute(conversation_ratings.delete().where(gone)).rowcount
    _remember(connection, [row.id for row in there])
    return found + Counted(ratings=ended)


def _remember(connection: Connection, ids: Sequence[str]) -> None:
    known = set(connection.scalars(sa.select(erased.c.session).where(erased.c.session.in_(ids))))
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    rows: list[dict[str, Any]] = [{"session": each, "time": now} for each in ids if each not in known]
    if rows:
        connection.execute(erased.insert(), rows)


def _count(ids: Sequence[str], connection: Connection) -> Counted:
    """What there is of sessions; ratings of whole conversations are not among it."""

    def rows(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        column = table.c.id if table is sessions else table.c.session
        return int(connection.scalar(sa.select(sa.func.count()).where(column.in_(ids), *conditions)) or 0)

    given = ratings.c.kind == "explicit"
    return Counted(
        sessions=rows(sessions), ratings=rows(ratings, given), corrections=rows(corrections), signals=rows(next_turns)
    )
