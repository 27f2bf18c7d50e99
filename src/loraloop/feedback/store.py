"""Sessions, ratings and corrections in a database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from loraloop.core.durations import stamp
from loraloop.core.session_file import ISSUES
from loraloop.core.session_rows import select
from loraloop.errors import DataError, StoreError
from loraloop.feedback.database import Database
from loraloop.feedback.links import Links
from loraloop.feedback.outcomes import outcome
from loraloop.feedback.ratings import implied, plain
from loraloop.feedback.schema import assessments, corrections, ratings, sessions
from loraloop.feedback.writer import Writer
from loraloop.records import Assessment, Outcome, Rating, Session

OnRating = Callable[[str, int, str], None]
"""Called with the version that had answered, the stars, and ``explicit`` or ``implicit``, after a rating was kept."""
Reviewed = Literal["accepted", "edited", "rejected"]
ANSWER = re.compile(r"^(chat)?cmpl-")
"""What OpenAI's shape puts before a session's id to name its answer."""

FIELDS = tuple(Assessment.__dataclass_fields__)
BATCH = 200
"""Proposals that are written in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A correction that waits for review.

    Attributes:
        source: ``user``: written on the rating page; ``sibling``: a high-rated answer to the same task; ``rule``: made
            of the recorded calls by the rule for the issue.
    """

    id: int
    session: str
    source: str
    text: str


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
    """Keeps sessions, ratings and corrections; a :class:`loraloop.protocols.Sessions`.

    Its methods may be called from any thread; each is one transaction.

    Args:
        database: Where.
        links: Makes the rating links.
        issues: What a rating may say went wrong: the label of each word.
        reviewed: Whether a correction that a user wrote waits for review before anything is trained on it.
        on_rating: Called after every rating that was kept.
    """

    def __init__(
        self,
        database: Database,
        links: Links,
        *,
        issues: Mapping[str, str] = ISSUES,
        reviewed: bool = True,
        on_rating: OnRating | None = None,
    ) -> None:
        self.database, self.links, self.issues = database, links, issues
        self.reviewed, self._on_rating = reviewed, on_rating
        self._writer = Writer(database)

    def keep(self, session: Session) -> None:
        """Keep a session that was served, and the rating that it implies; both are on disk when this returns.

        Raises:
            StoreError: They could not be kept.
        """
        with self._kept(session):
            self._writer.write(lambda connection: _keep(connection, session))

    async def keep_served(self, session: Session) -> None:
        """As :meth:`keep`, without a thread that waits for the disk.

        Raises:
            StoreError: They could not be kept.
        """
        with self._kept(session):
            await self._writer.written(lambda connection: _keep(connection, session))

    def link(self, session: str) -> str:
        """The signed path of the page on which a person rates the answer."""
        return self.links.make(session)

    def rate(self, session: str, rating: Rating, key: str | None = None) -> Session:
        """Keep a person's rating, the session's only one, and the correction that came with it.

        Args:
            session: Its id, or that of the answer.
            rating: The rating.
            key: Name of the API key that it came with; ``None`` with a rating link.

        Returns:
            The session as it was before.

        Raises:
            UnknownSessionError: There is no such session.
            RatedError: It was rated before; that rating stands.
            StoreError: It could not be kept.
        """
        found = self.session(session)

        def write(connection: Connection) -> None:
            _rate(connection, found.id, "explicit", rating, key=key)
            if rating.correction:
                status = "proposed" if self.reviewed else "accepted"
                _correct(connection, found.id, "user", status, rating.correction)

        try:
            self._writer.write(write)
        except IntegrityError as error:
            if self.session(found.id).rating is None:
                raise StoreError(f"the rating of {found.id} is not one that is kept: {rating.stars} stars") from error
            raise RatedError(found.id) from None
        self._tell(found, rating.stars, "explicit")
        return found

    def session(self, session: str) -> Session:
        """One session, by its id or by that of the answer in OpenAI's shape, ``chatcmpl-...`` or ``cmpl-...``.

        Raises:
            UnknownSessionError: There is no such session.
        """
        found = None
        if plain(session):  # what no database can hold is in none
            where, own = "sessions.id IN (:named, :own)", ANSWER.sub("", session)
            with self.database.read() as connection:
                found = next(select(connection, where, named=session, own=own), None)
        if found is None:
            raise UnknownSessionError(f"there is no session {session!r} in {self.database.name}")
        return found

    def correct(self, session: str, text: str) -> None:
        """Keep the right answer to a session that was rated without one, as a correction of its user.

        Raises:
            DataError: Its correction was reviewed already.
            UnknownSessionError: There is no such session.
        """
        found, status = self.session(session), "proposed" if self.reviewed else "accepted"
        if found.correction is not None:
            raise DataError(f"the session {found.id} has a correction that was reviewed already: that one stands")
        self._writer.write(lambda connection: _correct(connection, found.id, "user", status, text))

    def all(self, answered: str | None = None, rated_below: int | None = None) -> list[Session]:
        """Sessions in the order of their ids.

        Args:
            answered: Of this version alone.
            rated_below: Of those alone that people gave fewer stars.
        """
        conditions = ["sessions.answered = :answered"] * bool(answered)
        conditions += ["given.stars < :rated_below"] * (rated_below is not None)
        where = " AND ".join(conditions) or "true"
        with self.database.read() as connection:
            return list(select(connection, where, answered=answered, rated_below=rated_below))

    def latest(self, count: int, own: Callable[[Session], bool] = lambda session: True) -> list[Session]:
        """The latest sessions for which ``own`` holds, the newest first; those without a time come last."""
        order = "sessions.time DESC NULLS LAST, sessions.id"
        with self.database.read() as connection:
            return list(islice(filter(own, select(connection, order=order, paged=True)), count))

    def outcomes(
        self,
        *,
        answered: str | None = None,
        rollout: str | None = None,
        since: str | None = None,
        rated_since: str | None = None,
        limit: int | None = None,
    ) -> list[Outcome]:
        """What sessions say about the versions that answered them, oldest first; see :func:`outcome`.

        Args:
            answered: Of this version alone.
            rollout: Of this rollout alone.
            since: ISO 8601; in UTC where it names no zone. Of requests that came then or later.
            rated_since: Likewise; of sessions that were rated then or later.
            limit: Of the latest so many.

        Raises:
            ValueError: ``since`` or ``rated_since`` is no time.
        """
        conditions = ["sessions.time IS NOT NULL", "sessions.answered IS NOT NULL"]
        if answered is not None:
            conditions.append("sessions.answered = :answered")
        if rollout is not None:
            conditions.append("sessions.rollout = :rollout")
        if since is not None:
            conditions.append("sessions.time >= :since")
            since = stamp(since)
        if rated_since is not None:
            conditions.append("given.time >= :rated_since")
            rated_since = stamp(rated_since)
        where, order = " AND ".join(conditions), "sessions.time DESC, sessions.id DESC"
        if limit is not None:
            order += " LIMIT :limit"
        values: dict[str, Any] = {"answered": answered, "rollout": rollout, "since": since, "limit": limit}
        values["rated_since"] = rated_since
        with self.database.read() as connection:
            newest = [outcome(each) for each in select(connection, where, order=order, texts=False, **values)]
        return sorted((each for each in reversed(newest) if each is not None), key=lambda each: each.time)

    def insert(self, session: Session, proposed: str = "", said: Sequence[Assessment] = ()) -> bool:
        """Keep a session from elsewhere with its rating and correction.

        Args:
            session: As it was kept there.
            proposed: A correction that a person wrote and nobody reviewed yet.
            said: What people, judges and programs said of it elsewhere.

        Returns:
            Whether it is new; one that is there already stays as it is.
        """

        def write(connection: Connection) -> None:
            connection.execute(sessions.insert(), _row(session))
            if session.rating is not None:
                at = session.rated or session.time
                _rate(connection, session.id, "explicit", session.rating, at, session.rated_key)
            if session.correction is not None:
                _correct(connection, session.id, "review", "accepted", session.correction)
            for text in session.refused:
                _correct(connection, session.id, "review", "rejected", text)
            if proposed:
                _correct(connection, session.id, "user", "proposed" if self.reviewed else "accepted", proposed)
            for each in said:
                values = {name: getattr(each, name) for name in FIELDS if name != "id"}
                connection.execute(assessments.insert().values(session=session.id, **values))

        try:
            self._writer.write(write)
        except IntegrityError:
            return False
        return True

    def said(self, session: str) -> list[Assessment]:
        """What was said of an imported session elsewhere, by people, judges and programs, in its order there."""
        query = sa.select(assessments).where(assessments.c.session == session).order_by(assessments.c.id)
        with self.database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [Assessment(**{name: str(row[name]) if name == "id" else row[name] for name in FIELDS}) for row in rows]

    def propose(self, proposals: Iterable[tuple[str, str, str]]) -> None:
        """Keep corrections (session, source, text) for review; one that was proposed before is not proposed again."""

        def write(batch: Sequence[tuple[str, str, str]], connection: Connection) -> None:
            for session, source, text in batch:
                known = connection.scalars(sa.select(corrections.c.proposed).where(corrections.c.session == session))
                if text not in known.all():
                    _correct(connection, session, source, "proposed", text)

        waiting = list(proposals)
        for start in range(0, len(waiting), BATCH):  # a server that writes meanwhile gets its turn in between
            self._writer.write(partial(write, waiting[start : start + BATCH]))

    def proposals(self) -> list[Proposal]:
        """Corrections that wait for review, of sessions that have none yet, oldest first."""
        done = sa.select(corrections.c.session).where(corrections.c.status.in_(("accepted", "edited")))
        waiting = sa.select(corrections).where(corrections.c.status == "proposed", corrections.c.session.not_in(done))
        with self.database.read() as connection:
            rows = connection.execute(waiting.order_by(corrections.c.id)).all()
        return [Proposal(id=row.id, session=row.session, source=row.source, text=row.text) for row in rows]

    def decide(self, proposal: int, reviewed: Reviewed, text: str | None = None) -> None:
        """Keep what a person decided on a proposal.

        Args:
            proposal: Its id.
            reviewed: ``edited`` asks for ``text``.
            text: The correction as it should be.

        Raises:
            DataError: It does not wait for review.
        """
        values = {"status": reviewed, "decided": _now()} | ({"text": text} if text is not None else {})
        waiting = (corrections.c.id == proposal) & (corrections.c.status == "proposed")
        changed = self._writer.write(
            lambda connection: connection.execute(corrections.update().where(waiting).values(values)).rowcount
        )
        if changed == 0:
            raise DataError(f"no proposal {proposal} waits for review; stage=review lists those that do")

    def close(self) -> None:
        """Write what waits, and give every connection back."""
        self._writer.close()
        self.database.close()

    @contextmanager
    def _kept(self, session: Session) -> Iterator[None]:
        """The block keeps ``session``; then the rating that it implies is told."""
        try:
            yield
        except IntegrityError as error:
            raise StoreError(f"the session {session.id} is kept already") from error
        stars = implied(session)
        if stars is not None:
            self._tell(session, stars, "implicit")

    def _tell(self, session: Session, stars: int, kind: str) -> None:
        if self._on_rating is not None:
            self._on_rating(session.answered or "", stars, kind)


def _row(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in session.__dataclass_fields__ if name in sessions.c}


def _keep(connection: Connection, session: Session) -> None:
    connection.execute(sessions.insert(), _row(session))
    stars = implied(session)
    if stars is not None:
        _rate(connection, session.id, "implicit", Rating(stars=stars))


def _rate(
    connection: Connection, session: str, kind: str, rating: Rating, time: str | None = None, key: str | None = None
) -> None:
    values = {"stars": rating.stars, "comment": rating.comment, "issues": list(rating.issues), "key": key}
    connection.execute(ratings.insert().values(session=session, kind=kind, time=time or _now(), **values))


def _correct(connection: Connection, session: str, source: str, status: str, text: str) -> None:
    now = _now()
    decided = None if status == "proposed" else now
    values = {"session": session, "source": source, "status": status, "proposed": text, "text": text}
    connection.execute(corrections.insert().values(time=now, decided=decided, **values))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
