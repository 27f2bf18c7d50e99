"""When two sessions are about the same task: the rule of review, of siblings and of training sets."""

from __future__ import annotations

import unicodedata

from loraloop.records import Session


def collapse(text: str) -> str:
    """``text`` in Unicode's composed form with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def question(session: Session) -> str:
    """What was asked, whatever its case, white space and final punctuation: the origin of a session's examples."""
    return collapse(f"{session.instruction}\n{session.task}").casefold().rstrip(" .!?")


def task_key(session: Session) -> tuple[str | None, str]:
    """What two sessions of the same task share: the agent and the :func:`question`."""
    return session.agent, question(session)
