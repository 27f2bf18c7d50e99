"""When two sessions are about the same task, and two answers the same: the rule of review and of training sets."""

from __future__ import annotations

import unicodedata

from loraloop.records import Session


def collapse(text: str) -> str:
    """``text`` in Unicode's composed form with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def answer_key(text: str) -> str:
    """What two answers share that say the same, whatever their case and white space."""
    return collapse(text).casefold()


def question(session: Session) -> str:
    """What was asked, whatever its case, white space and final punctuation: the origin of a session's examples."""
    return collapse(f"{session.instruction}\n{session.task}").casefold().rstrip(" .!?")


def task_key(session: Session) -> tuple[str | None, str]:
    """What two sessions of the same task share: the agent and the :func:`question`."""
    return session.agent, question(session)
