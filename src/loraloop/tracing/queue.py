"""What still has to be exported: rows that are written with the session itself, and marked when it was sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from loraloop.core.session_rows import select
from loraloop.protocols import Database
from loraloop.records import Session
from loraloop.tracing.schema import assessments, exports, prepare

THEIRS = "mlflow:"
"""Begins the key of a rating that was given in MLflow, which therefore does not go back there."""
WAITING = """sessions.id IN (
  SELECT session FROM trace_exports WHERE destination = :destination AND sent IS NULL ORDER BY tries LIMIT :limit
)"""
RATINGS = """
SELECT ratings.session, stars, comment, issues, ratings.time, ratings.key
FROM ratings JOIN trace_exports ON trace_exports.session = ratings.session AND destination = :destination
WHERE kind = 'explicit' AND sent IS NOT NULL AND NOT rated AND (ratings.key IS NULL OR ratings.key NOT LIKE :theirs)
ORDER BY ratings.time LIMIT :limit
"""
CORRECTIONS = """
SELECT corrections.id, corrections.session, text, decided
FROM corrections JOIN trace_exports ON trace_exports.session = corrections.session AND destination = :destination
WHERE status IN ('accepted', 'edited') AND sent IS NOT NULL AND corrections.id > corrected
ORDER BY corrections.id LIMIT :limit
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A rating that a person gave through loraloop.

    Attributes:
        time: ISO 8601, UTC.
        key: Name of the API key that it came with.
    """

    session: str
    stars: int
    comment: str
    issues: tuple[str, ...]
    time: str
    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A correction that was reviewed.

    Attributes:
        text: What the answer should have been.
        time: ISO 8601, UTC, of the review.
    """

    id: int
    session: str
    text: str
    time: str | None


def put(destinations: Sequence[str]) -> Callable[[Connection, Session], None]:
    """A function that lets a session wait for ``destinations``, in the transaction that keeps it."""

    def kept(connection: Connection, session: Session) -> None:
        rows = [
            {"destination": each, "session": session.id, "tries": 0, "rated": False, "corrected": 0}
            for each in destinations
        ]
        connection.execute(exports.insert(), rows)

    return kept


class Queue:
    """The sessions that wait for one destination, and those that were sent there.

    Args:
        database: Of the sessions; missing tables are made.
        destination: ``mlflow`` or ``otlp``.
    """

    def __init__(self, database: Database, destination: str) -> None:
        self.database, self.destination = database, destination
        prepare(database)

    def waiting(self) -> int:
        """How many sessions wait."""
        query = sa.select(sa.func.count()).select_from(exports).where(self._own, exports.c.sent.is_(None))
        with self.database.read() as connection:
            return int(connection.scalar(query) or 0)

    def take(self, limit: int) -> list[Session]:
        """Sessions that wait, those first that failed less often; they wait on until :meth:`sent`."""
        with self.database.read() as connection:
            return list(select(connection, WAITING, destination=self.destination, limit=limit))

    def sent(self, sessions: Sequence[Session]) -> None:
        """Mark sessions as sent."""
        self._mark([each.id for each in sessions], sent=_now())

    def failed(self, sessions: Sequence[Session]) -> None:
        """Let others go before sessions that could not be sent."""
        self._mark([each.id for each in sessions], tries=exports.c.tries + 1)

    def ratings(self, limit: int) -> list[Given]:
        """Ratings of sent sessions that were not sent yet, but for those that were given in MLflow."""
        query = sa.text(RATINGS).columns(issues=sa.JSON())
        with self.database.read() as connection:
            values = {"destination": self.destination, "limit": limit, "theirs": f"{THEIRS}%"}
            rows = connection.execute(query, values).mappings().all()
        return [Given(**dict(row) | {"issues": tuple(row["issues"])}) for row in rows]

    def corrections(self, limit: int) -> list[Corrected]:
        """Reviewed corrections of sent sessions that were not sent yet."""
        query = sa.text(CORRECTIONS).columns(text=sa.JSON())
        with self.database.read() as connection:
            rows = connection.execute(query, {"destination": self.destination, "limit": limit}).all()
        return [Corrected(id=row.id, session=row.session, text=row.text, time=row.decided) for row in rows]

    def told(self, judged: Given | Corrected) -> None:
        """Mark a rating or a correction as sent."""
        if isinstance(judged, Given):
            self._mark([judged.session], rated=True)
        else:
            self._mark([judged.session], corrected=judged.id)

    def taken(self, ids: Sequence[str]) -> set[str]:
        """Those of MLflow's assessments that :meth:`take_back` knows."""
        with self.database.read() as connection:
            return set(connection.scalars(sa.select(assessments.c.id).where(assessments.c.id.in_(ids))))

    def take_back(self, id: str, session: str, became: str) -> None:
        """Remember what an assessment was taken for; it is not looked at again."""
        with self.database.write() as connection:
            connection.execute(assessments.insert().values(id=id, session=session, became=became, time=_now()))

    @property
    def _own(self) -> sa.ColumnElement[bool]:
        return exports.c.destination == self.destination

    def _mark(self, sessions: Sequence[str], **values: object) -> None:
        with self.database.write() as connection:
            connection.execute(exports.update().where(self._own, exports.c.session.in_(sessions)).values(**values))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
