"""Sessions, ratings and corrections in a database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from loraloop.core.durations import stamp
from loraloop.core.session_file import ISSUES
from loraloop.core.session_rows import select
from loraloop.errors import DataError, StoreError
from loraloop.feedback import conversations, decisions, next_turn
from loraloop.feedback.database import Database
from loraloop.feedback.decisions import Reviewed
from loraloop.feedback.links import Links
from loraloop.feedback.outcomes import outcome
from loraloop.feedback.ratings import implied, plain
from loraloop.feedback.schema import (
    assessments,
    conversation_ratings,
    corrections,
    erased,
    next_turns,
    ratings,
    sessions,
)
from loraloop.feedback.writer import Writer
from loraloop.records import Assessment, Outcome, Rating, Session

OnRating = Callable[[str, int, str], None]
"""Called with the version that had answered, the stars, and what they are, after a rating was kept.

They are ``explicit`` for an answer, ``conversation`` for a whole conversation, or ``implicit``.
"""
Level = Literal["answer", "conversation"]
"""What a person rates."""
T = TypeVar("T")
OnKept = Callable[[Connection, Session], None]
"""Called in the transaction that keeps a served session."""
ANSWER = re.compile(r"^((chat)?cmpl-|resp_)")
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
    """The session, or its conversation, has its rating already.

    Args:
        session: Its id.
        level: What was to be rated.
    """

    def __init__(self, session: str, level: Level = "answer") -> None:
        rated = "the session" if level == "answer" else "the conversation of"
        super().__init__(f"{rated} {session} is rated already: each has one rating, and the first stands")


class Store:
    """Keeps sessions, ratings and corrections; a :class:`loraloop.protocols.Sessions`.

    Its methods may be called from any thread; each is one transaction.

    Args:
        database: Where.
        links: Makes the rating links.
        issues: What a rating may say went wrong: the label of each word.
        reviewed: Whether a correction that a user wrote waits for review before anything is trained on it.
        next_turn: Whether the user's next turn is kept as a signal about the answer before it.
        on_rating: Called after every rating that was kept.
        on_kept: Called in the transaction that keeps a served session; what it writes is kept with it, or not at all.
    """

    def __init__(
        self,
        database: Database,
        links: Links,
        *,
        issues: Mapping[str, str] = ISSUES,
        reviewed: bool = True,
        next_turn: bool = False,
        on_rating: OnRating | None = None,
        on_kept: OnKept | None = None,
    ) -> None:
        self.database, self.links, self.issues = database, links, issues
        self.reviewed, self._next_turn, self._on_rating = reviewed, next_turn, on_rating
        self._on_kept = on_kept
        self._writer = Writer(database)

    def keep(self, session: Session) -> None:
        """Keep a session that was served, and the rating that it implies; both are on disk when this returns.

        Raises:
            StoreError: They could not be kept.
        """
        with self._kept(session):
            self._writer.write(lambda connection: self._keep(connection, session))

    async def keep_served(self, session: Session) -> None:
        """As :meth:`keep`, without a thread that waits for the disk.

        Raises:
            StoreError: They could not be kept.
        """
        with self._kept(session):
            await self._writer.written(lambda connection: self._keep(connection, session))

    def link(self, session: str) -> str:
        """The signed path of the page on which a person rates the answer."""
        return self.links.make(session)

    def write(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` returns, after its commit; it waits for its turn as every write does.

        Raises:
            StoreError: It could not be done.
        """
        return self._writer.write(work)

    def rate(
        self,
        session: str,
        rating: Rating,
        key: str | None = None,
        *,
        level: Level = "answer",
        claimed: str | None = None,
    ) -> Session:
        """Keep a person's rating of an answer or of its conversation, and the correction that came with it.

        Each has one rating. That of a conversation is kept apart from those of its answers, and brings no correction.

        Args:
            session: Its id, or that of the answer.
            rating: The rating.
            key: Name of the API key that it came with; ``None`` with a rating link.
            level: What is rated.
            claimed: Who rates, as the request says.

        Returns:
            The session as it was before.

        Raises:
            UnknownSessionError: There is no such session.
            RatedError: It was rated before; that rating stands.
            StoreError: It could not be kept.
        """
        found = self.session(session)

        def write(connection: Connection) -> None:
            if level == "conversation":
                _rate_conversation(connection, found, rating, key, claimed)
                return
            _rate(connection, found.id, "explicit", rating, key=key, claimed=claimed)
            if rating.correction:
                status = "proposed" if self.reviewed else "accepted"
                _correct(connection, found.id, "user", status, rating.correction)

        try:
            self._writer.write(write)
        except IntegrityError as error:
            if self.rated(self.session(found.id), level) is None:
                raise StoreError(f"the rating of {found.id} is not one that is kept: {rating.stars} stars") from error
            raise RatedError(found.id, level) from None
        self._tell(found, rating.stars, "explicit" if level == "answer" else level)
        return found

    def rated(self, session: Session, level: Level) -> Rating | None:
        """The rating that a person gave a session as it was read, or its conversation."""
        return session.rating if level == "answer" else self.conversation_ratings([session]).get(session.id)

    def conversation_ratings(self, of: Sequence[Session]) -> dict[str, Rating]:
        """The ratings of the conversations of sessions, by the session's id."""
        wanted = {each.id: each.conversation_id or each.id for each in of}
        table = conversation_ratings
        with self.database.read() as connection:
            rows = connection.execute(sa.select(table).where(table.c.conversation.in_(set(wanted.values())))).all()
        found = {
            each.conversation: Rating(stars=each.stars, comment=each.comment, issues=tuple(each.issues))
            for each in rows
        }
        return {name: found[conversation] for name, conversation in wanted.items() if conversation in found}

    def signals(self, of: Sequence[Session]) -> dict[str, str]:
        """What the user's next turn said about answers (:mod:`loraloop.feedback.next_turn`), by the session's id."""
        wanted = next_turns.c.session.in_([each.id for each in of])
        with self.database.read() as connection:
            return {row.session: row.signal for row in connection.execute(sa.select(next_turns).where(wanted))}

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

        One that its user wrote before, and that still waits for review, is replaced.

        Raises:
            DataError: Its correction was decided on already.
            UnknownSessionError: There is no such session.
        """
        found, status = self.session(session), "proposed" if self.reviewed else "accepted"

        def write(connection: Connection) -> bool:
            own = corrections.c.session == found.id
            done = own & corrections.c.status.in_(("accepted", "edited"))
            if connection.scalar(sa.select(corrections.c.id).where(done).limit(1)) is not None:
                return False
            before = own & (corrections.c.source == "user") & (corrections.c.status == "proposed")
            connection.execute(corrections.delete().where(before))
            _correct(connection, found.id, "user", status, text)
            return True

        if not self._writer.write(write):
            raise DataError(f"the session {found.id} has a correction that was decided on already: that one stands")

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
            Whether it is new; one that is there already stays as it is, and one that was erased does not come back.
        """

        def write(connection: Connection) -> bool:
            if connection.scalar(sa.select(erased.c.session).where(erased.c.session == session.id)) is not None:
                return False
            connection.execute(sessions.insert(), _row(session) | conversations.link(connection, session))
            if session.rating is not None:
                at = session.rated or session.time
                _rate(connection, session.id, "explicit", session.rating, at, session.rated_key)
            if session.correction is not None:
                _correct(connection, session.id, "review", "accepted", session.correction)
            for text in session.refused:
                _correct(connection, session.id, "review", "rejected", text)
            if proposed:
                _correct(connection, session.id, "user", "proposed" if self.reviewed else "accepted", proposed)
            _say(connection, session.id, said)
            return True

        try:
            return self._writer.write(write)
        except IntegrityError:
            return False

    def assess(self, session: str, said: Sequence[Assessment]) -> None:
        """Keep what a judge said of a session, apart from what people gave it; it tells nobody of a rating."""
        self._writer.write(lambda connection: _say(connection, session, said))

    def said(self, session: str) -> list[Assessment]:
        """What was said of a session by judges here, or elsewhere by people, judges and programs, in its order."""
        return [each for _, each in self._assessments(assessments.c.session == session)]

    def judged(self) -> list[tuple[str, Assessment]]:
        """What judges said of every session, here and elsewhere, with the session's id, in the order of its keeping."""
        return self._assessments(assessments.c.source == "judge")

    def _assessments(self, where: sa.ColumnElement[bool]) -> list[tuple[str, Assessment]]:
        query = sa.select(assessments).where(where).order_by(assessments.c.id)
        with self.database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            (row["session"], Assessment(**{name: str(row[name]) if name == "id" else row[name] for name in FIELDS}))
            for row in rows
        ]

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

    def proposed(self, own: Callable[[Session], bool]) -> list[tuple[Proposal, Session]]:
        """The :meth:`proposals` of sessions for which ``own`` holds, each with its session."""
        where = "sessions.id IN (SELECT session FROM corrections WHERE status = 'proposed')"
        waiting = self.proposals()
        with self.database.read() as connection:
            found = {each.id: each for each in select(connection, where) if own(each)}
        return [(each, found[each.session]) for each in waiting if each.session in found]

    def decide(self, proposal: int, reviewed: Reviewed, text: str | None = None, key: str | None = None) -> None:
        """Keep what a person decided on a proposal; what was decided before stands.

        Args:
            proposal: Its id.
            reviewed: ``edited`` asks for ``text``.
            text: The correction as it should be.
            key: Name of the API key that it came with; ``None`` from a terminal.

        Raises:
            DataError: It does not wait for review, or its session got a correction meanwhile.
        """
        if not self._writer.write(lambda connection: decisions.decide(connection, proposal, reviewed, text, key)):
            raise DataError(f"no proposal {proposal} waits for review; stage=review lists those that do")

    def mean_stars(self) -> dict[str | None, float]:
        """The mean of the stars that people gave answers, by the agent role that was asked."""
        query = sa.select(sessions.c.role, sa.func.avg(ratings.c.stars)).join(ratings).group_by(sessions.c.role)
        with self.database.read() as connection:
            rows = connection.execute(query.where(ratings.c.kind == "explicit")).all()
        return {role: float(mean) for role, mean in rows}

    def close(self) -> None:
        """Write what waits, and give every connection back."""
        self._writer.close()
        self.database.close()

    def _keep(self, connection: Connection, session: Session) -> None:
        connection.execute(sessions.insert(), _row(session) | conversations.link(connection, session))
        stars = implied(session)
        if stars is not None:
            _rate(connection, session.id, "implicit", Rating(stars=stars))
        if self._next_turn:
            _note_next_turn(connection, session)
        if self._on_kept is not None:
            self._on_kept(connection, session)

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


def _note_next_turn(connection: Connection, session: Session) -> None:
    """Keep what a request says about the answer that it goes on from; the first request that does so counts."""
    about = conversations.preceding(connection, session)
    signal = next_turn.signal(conversations.said(session)[:-1]) if about is not None else None
    if signal is None or connection.scalar(sa.select(next_turns.c.signal).where(next_turns.c.session == about.id)):
        return
    connection.execute(next_turns.insert().values(session=about.id, signal=signal, time=session.time or _now()))


def _rate(
    connection: Connection,
    session: str,
    kind: str,
    rating: Rating,
    time: str | None = None,
    key: str | None = None,
    claimed: str | None = None,
) -> None:
    values = {"session": session, "kind": kind, "time": time or _now(), "key": key, "claimed": claimed}
    connection.execute(ratings.insert().values(**values, **_given(rating)))


def _rate_conversation(
    connection: Connection, session: Session, rating: Rating, key: str | None, claimed: str | None
) -> None:
    there = sa.select(sessions.c.id).where(sessions.c.id == session.id).with_for_update(read=True)
    if connection.scalar(there) is None:
        raise UnknownSessionError(f"the session {session.id} was erased meanwhile")
    values = {"conversation": session.conversation_id or session.id, "time": _now(), "key": key, "claimed": claimed}
    connection.execute(conversation_ratings.insert().values(**values, **_given(rating)))


def _given(rating: Rating) -> dict[str, Any]:
    return {"stars": rating.stars, "comment": rating.comment, "issues": list(rating.issues)}


def _correct(connection: Connection, session: str, source: str, status: str, text: str) -> None:
    now = _now()
    decided = None if status == "proposed" else now
    values = {"session": session, "source": source, "status": status, "proposed": text, "text": text}
    connection.execute(corrections.insert().values(time=now, decided=decided, **values))


def _say(connection: Connection, session: str, said: Sequence[Assessment]) -> None:
    for each in said:
        values = {name: getattr(each, name) for name in FIELDS if name != "id"}
        connection.execute(assessments.insert().values(session=session, **values))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
