"""Sessions, ratings and corrections in a database."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from loraloop.errors import DataError, StoreError
from loraloop.feedback.database import Database
from loraloop.feedback.links import Links
from loraloop.feedback.logged import Logged, Proposal
from loraloop.feedback.ratings import Rating, implied, plain
from loraloop.feedback.schema import corrections, ratings, sessions
from loraloop.records import Outcome, Served

Rated = Callable[[str, int, str], None]
"""Told of every rating that was kept: what had answered, the stars, and ``explicit`` or ``implicit``."""
Verdict = Literal["accepted", "edited", "rejected"]
GOOD = ("accepted", "edited")
ANSWER = re.compile(r"^(chat)?cmpl-")
OUTCOME = [
    sessions.c[name] for name in ("id", "time", "conversation", "client", "answered", "rollout", "status", "duration")
]


class UnknownSessionError(DataError):
    """There is no such session."""


class RatedError(DataError):
    """The session has its rating already.

    Args:
        session: Its id.
    """

    def __init__(self, session: str) -> None:
        super().__init__(f"the session {session} is rated already: each has one rating, and the first stands")


class Store:
    """Keeps what was served and what people made of it; a :class:`loraloop.protocols.Sessions`.

    Its methods may be called from any thread; each is one transaction.

    Args:
        database: Where.
        links: Makes the rating links.
        reviewed: Whether a person's corrected answer waits for review before anyone learns from it.
        rated: Told of ratings.
    """

    def __init__(self, database: Database, links: Links, *, reviewed: bool = True, rated: Rated | None = None) -> None:
        self.database, self.links = database, links
        self.reviewed, self._rated = reviewed, rated
        # SQLite's writers poll for their turn; threads of one process can wait for it.
        self._writing = threading.Lock()

    def keep(self, served: Served) -> None:
        """Keep an answer, and the rating that its course implies; both are on disk when this returns.

        Raises:
            StoreError: They could not be kept.
        """
        stars = implied(served.status, served.duration, served.retries)
        row = asdict(served)
        try:
            with self._writing, self.database.write() as connection:
                connection.execute(sessions.insert(), row)
                if stars is not None:
                    _rate(connection, served.id, "implicit", Rating(stars=stars))
        except IntegrityError as error:
            raise StoreError(f"the session {served.id} is kept already") from error
        if stars is not None:
            self._tell(served.answered, stars, "implicit")

    def link(self, session: str) -> str:
        """The signed path of the page on which a person rates the answer."""
        return self.links.make(session)

    def rate(self, session: str, rating: Rating) -> Logged:
        """Keep a person's rating, the session's only one, and the correction that came with it.

        Raises:
            UnknownSessionError: There is no such session.
            RatedError: It was rated before; that rating stands.
            StoreError: It could not be kept.
        """
        logged = self.session(session)
        session = logged.id
        try:
            with self._writing, self.database.write() as connection:
                _rate(connection, session, "explicit", rating)
                if rating.correction:
                    status = "proposed" if self.reviewed else "accepted"
                    _correct(connection, session, "user", status, rating.correction)
        except IntegrityError as error:
            if self.session(session).rating is None:
                raise StoreError(f"the rating of {session} is not one that is kept: {rating.stars} stars") from error
            raise RatedError(session) from None
        self._tell(logged.answered or "", rating.stars, "explicit")
        return logged

    def session(self, session: str) -> Logged:
        """One session, by its id or by that of the answer in OpenAI's shape, ``chatcmpl-...`` or ``cmpl-...``.

        Raises:
            UnknownSessionError: There is no such session.
        """
        found = None
        if plain(session):  # what no database can hold is in none
            own = ANSWER.sub("", session)
            with self.database.read() as connection:
                found = next(_select(connection, sessions.c.id.in_({session, own})), None)
        if found is None:
            raise UnknownSessionError(f"there is no session {session!r} in {self.database.name}")
        return found

    def all(self, answered: str | None = None) -> list[Logged]:
        """Every session, or those that a version answered, in the order of their ids."""
        with self.database.read() as connection:
            return list(_select(connection, *([sessions.c.answered == answered] if answered else [])))

    def outcomes(
        self,
        *,
        answered: str | None = None,
        rollout: str | None = None,
        since: str | None = None,
        limit: int | None = None,
    ) -> list[Outcome]:
        """What sessions say about the versions that answered them, oldest first, with the stars that people gave.

        Sessions of which nobody knows when they were or what answered (imported ones) are left out, as are those whose
        time, which earlier versions imported as it came, cannot be read.

        Args:
            answered: Of this version alone.
            rollout: Of this rollout alone.
            since: ISO 8601; in UTC where it names no zone. Of requests that came then or later.
            limit: Of the latest so many.

        Raises:
            ValueError: ``since`` is no time.
        """
        conditions: list[sa.ColumnElement[bool]] = [sessions.c.time.is_not(None), sessions.c.answered.is_not(None)]
        if answered is not None:
            conditions.append(sessions.c.answered == answered)
        if rollout is not None:
            conditions.append(sessions.c.rollout == rollout)
        if since is not None:
            conditions.append(sessions.c.time >= stamp(since))
        given = (ratings.c.session == sessions.c.id) & (ratings.c.kind == "explicit")
        newest = (
            sa.select(*OUTCOME, ratings.c.stars, ratings.c.time.label("rated"))
            .select_from(sessions.outerjoin(ratings, given))
            .where(*conditions)
            .order_by(sessions.c.time.desc(), sessions.c.id.desc())
            .limit(limit)
        )
        with self.database.read() as connection:
            rows = connection.execute(newest).all()
        return sorted(_outcomes(reversed(rows)), key=lambda each: each.time)

    def latest(self, count: int) -> list[Logged]:
        """The latest sessions, the newest first."""
        newest = sa.select(sessions.c.id).order_by(sessions.c.time.desc().nulls_last(), sessions.c.id).limit(count)
        with self.database.read() as connection:
            found = list(_select(connection, sessions.c.id.in_(newest)))
        return sorted(found, key=lambda each: each.time or "", reverse=True)

    def insert(self, logged: Logged) -> bool:
        """Keep a session from elsewhere with its rating and correction; whether it is new."""
        names = {name: getattr(logged, name) for name in logged.__dataclass_fields__ if name in sessions.c}
        try:
            with self._writing, self.database.write() as connection:
                connection.execute(sessions.insert(), names)
                if logged.rating is not None:
                    _rate(connection, logged.id, "explicit", logged.rating, logged.rated or logged.time)
                if logged.correction is not None:
                    _correct(connection, logged.id, "review", "accepted", logged.correction)
        except IntegrityError:
            return False
        return True

    def propose(self, proposals: Iterable[tuple[str, str, str]]) -> None:
        """Keep corrections (session, source, text) for review; one that was proposed before is not proposed again."""
        with self._writing, self.database.write() as connection:
            for session, source, text in proposals:
                known = connection.scalars(sa.select(corrections.c.proposed).where(corrections.c.session == session))
                if text not in known.all():
                    _correct(connection, session, source, "proposed", text)

    def proposals(self) -> list[Proposal]:
        """Corrections that wait for review, of sessions that have none yet, oldest first."""
        done = sa.select(corrections.c.session).where(corrections.c.status.in_(GOOD))
        waiting = sa.select(corrections).where(corrections.c.status == "proposed", corrections.c.session.not_in(done))
        with self.database.read() as connection:
            rows = connection.execute(waiting.order_by(corrections.c.id)).all()
        return [Proposal(id=row.id, session=row.session, source=row.source, text=row.text) for row in rows]

    def decide(self, proposal: int, verdict: Verdict, text: str | None = None) -> None:
        """Keep what a person made of a proposal.

        Args:
            proposal: Its id.
            verdict: ``edited`` asks for ``text``.
            text: The correction as it should be.

        Raises:
            DataError: It does not wait for review.
        """
        values = {"status": verdict, "decided": _now()} | ({"text": text} if text is not None else {})
        waiting = (corrections.c.id == proposal) & (corrections.c.status == "proposed")
        with self._writing, self.database.write() as connection:
            if connection.execute(corrections.update().where(waiting).values(values)).rowcount == 0:
                raise DataError(f"no proposal {proposal} waits for review; stage=review lists those that do")

    def close(self) -> None:
        """Give every connection back."""
        self.database.close()

    def _tell(self, answered: str, stars: int, kind: str) -> None:
        if self._rated is not None:
            self._rated(answered, stars, kind)


def _rate(connection: Connection, session: str, kind: str, rating: Rating, time: str | None = None) -> None:
    values = {"stars": rating.stars, "comment": rating.comment, "issues": list(rating.issues)}
    connection.execute(ratings.insert().values(session=session, kind=kind, time=time or _now(), **values))


def _correct(connection: Connection, session: str, source: str, status: str, text: str) -> None:
    now = _now()
    decided = None if status == "proposed" else now
    values = {"session": session, "source": source, "status": status, "proposed": text, "text": text}
    connection.execute(corrections.insert().values(time=now, decided=decided, **values))


def _select(connection: Connection, *conditions: sa.ColumnElement[bool]) -> Iterator[Logged]:
    """Sessions with their ratings and the correction that was accepted last, in the order of their ids."""
    given, course = ratings.alias(), ratings.alias()
    last = (
        sa.select(sa.func.max(corrections.c.id)).where(corrections.c.status.in_(GOOD)).group_by(corrections.c.session)
    )
    joined = (
        sessions.outerjoin(given, (given.c.session == sessions.c.id) & (given.c.kind == "explicit"))
        .outerjoin(course, (course.c.session == sessions.c.id) & (course.c.kind == "implicit"))
        .outerjoin(corrections, (corrections.c.session == sessions.c.id) & corrections.c.id.in_(last))
    )
    asked = sa.select(
        sessions,
        given.c.stars,
        given.c.comment,
        given.c.issues,
        given.c.time.label("rated"),
        course.c.stars.label("implied"),
        corrections.c.text,
    )
    for row in connection.execute(asked.select_from(joined).where(*conditions).order_by(sessions.c.id)):
        yield _logged(row)


def _logged(row: Row[Any]) -> Logged:
    own = {name: getattr(row, name) for name in Logged.__dataclass_fields__ if name in sessions.c}
    rating = None
    if row.stars is not None:
        rating = Rating(stars=row.stars, comment=row.comment, issues=tuple(row.issues))
    return Logged(**own, rated=row.rated, rating=rating, implied=row.implied, correction=row.text)


def _outcomes(rows: Iterable[Any]) -> Iterator[Outcome]:
    for row in rows:
        try:
            yield _outcome(row, stamp(row.time))
        except ValueError:
            continue


def _outcome(row: Row[Any], time: str) -> Outcome:
    return Outcome(
        session=row.id,
        time=time,
        conversation=row.conversation or row.id,
        rater=row.client,
        answered=row.answered,
        rollout=row.rollout,
        success=None if row.status in (None, "cancelled") else row.status == "ok",
        stars=row.stars,
        rated=row.rated,
        duration=row.duration,
    )


def stamp(time: str) -> str:
    """``time`` as sessions are stamped: so written, times are in the order of their texts.

    Raises:
        ValueError: It is no time of ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(time)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{time!r} is no time: write it as ISO 8601 does, 2026-03-02T11:00:00Z") from None
    return moment.isoformat(timespec="milliseconds")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
