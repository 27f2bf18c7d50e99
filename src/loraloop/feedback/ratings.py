"""Bounds of what a person writes about an answer, and the stars that a session implies (promise L2)."""

from __future__ import annotations

from loraloop.records import Session

QUICK_SECONDS = 10
SLOW_SECONDS = 30
LONGEST_COMMENT = 2_000
"""Characters."""
LONGEST_CORRECTION = 16_000
"""Characters."""


def implied(session: Session) -> int | None:
    """The stars that status, duration and retries of a served session imply, by L2's table.

    A failure is 1; a success after retries or in more than 30 s is 3, in 10 to 30 s 4, and in less than 10 s 5.
    A client that left says nothing about the answer.
    """
    if session.status in (None, "cancelled"):
        return None
    if session.status != "ok":
        return 1
    seconds = session.duration or 0.0
    if session.retries or seconds > SLOW_SECONDS:
        return 3
    return 4 if seconds >= QUICK_SECONDS else 5


def plain(text: str) -> bool:
    """Whether every database takes ``text``: it has no NUL and no half of a surrogate pair."""
    return "\0" not in text and text == text.encode("utf8", "replace").decode("utf8")


def clean(text: str) -> str:
    """``text`` as every database takes it: no NUL, no half of a surrogate pair, no space around it."""
    return text.encode("utf8", "replace").decode("utf8").replace("\0", "").strip()
