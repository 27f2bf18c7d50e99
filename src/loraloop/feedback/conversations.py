"""Which answers belong to one conversation: by the client's name for it, or by the past that a request repeats.

Both are scoped by the client, its key and the user that it names: nobody goes on with the conversation of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from loraloop.core import messages, tool_calls
from loraloop.core.hashing import sha256_json
from loraloop.core.same_task import collapse
from loraloop.feedback.schema import sessions
from loraloop.records import Message, Session


def said(session: Session) -> tuple[Message, ...]:
    """The messages of a session, its answer last, with calls and results; none where the prompt is not of that form."""
    if isinstance(session.prompt, str):
        return ()
    try:
        return (*messages.read_all(session.prompt), answered(session))
    except ValueError:
        return ()


def answered(session: Session) -> Message:
    """An answer as the message that its client got of it."""
    text, calls = tool_calls.given(session.answer or "", bool(session.tools))
    return Message("assistant", (text,), calls)


def link(connection: Connection, session: Session) -> dict[str, str | None]:
    """The columns that link a session with the others of its conversation.

    A conversation that its client names has an id made of that name. One without a name has the id of its first answer:
    a request goes on with the answer that it names, or else with the one whose messages it repeats.
    """
    turns = said(session)
    before = _named(connection, session) or (None if session.conversation else _repeated(connection, session))
    if session.conversation is None:
        found = before.conversation_id if before else session.id
    elif before and before.conversation_id == session.conversation:  # which had no name
        found = session.conversation
    else:
        found = sha256_json(["conversation", *_client(session), session.conversation])[:32]
    return {"conversation_id": found, "next_past": _key(session, turns) if turns else None}


def preceding(connection: Connection, session: Session) -> Any:
    """The answer that a request goes on from, a row of ``id`` and ``conversation_id``; ``None`` if there is none."""
    return _named(connection, session) or _repeated(connection, session)


def _named(connection: Connection, session: Session) -> Any:
    """The answer that a request names, unless it came with another key or for another user."""
    if session.follows is None:
        return None
    columns = (sessions.c.id, sessions.c.conversation_id, sessions.c.client)
    own = sessions.c.asked_key == session.asked_key
    found = connection.execute(sa.select(*columns).where(sessions.c.id == session.follows, own)).first()
    # Who names no user asks as its key.
    users = {session.client, found.client if found else None} - {session.asked_key, None}
    return found if len(users) < 2 else None


def _repeated(connection: Connection, session: Session) -> Any:
    past = said(session)[:-1]
    ends = [place for place, turn in enumerate(past, 1) if turn.role == "assistant"]
    if not ends:
        return None
    repeated = sa.select(sessions.c.id, sessions.c.conversation_id).where(
        sessions.c.next_past == _key(session, past[: ends[-1]]), sessions.c.id != session.id
    )
    return connection.execute(repeated.order_by(sessions.c.time.desc().nulls_last(), sessions.c.id).limit(1)).first()


def _client(session: Session) -> tuple[str | None, str | None]:
    return session.asked_key, session.client


def _key(session: Session, turns: Sequence[Message]) -> str:
    """A hash of messages and their client, whatever ids of calls and white space a client sends back."""
    return sha256_json(["past", *_client(session), *map(_plain, turns)])


def _plain(turn: Message) -> list[Any]:
    # Of several calls a client that takes one at a time sends the first back.
    calls = [[call.name, dict(call.arguments)] for call in turn.tool_calls[:1]]
    return [turn.role, collapse(turn.text), calls]
