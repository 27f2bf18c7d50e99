"""Ratings: what a person gives, and what a session's course implies (promise L2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ISSUES: Mapping[str, str] = {
    "ocr_confidence_low": "OCR confidence low",
    "wrong_action_selected": "Wrong action selected",
    "timeout": "Timeout",
    "minor_precision_issue": "Minor precision issue",
    "other": "Other",
}
"""What can go wrong: the word for programs, and as people read it and session logs name it."""
QUICK_SECONDS = 10
SLOW_SECONDS = 30
LONGEST_COMMENT = 2_000
"""Characters."""
LONGEST_CORRECTION = 16_000
"""Characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What a person thinks of an answer.

    Attributes:
        stars: 1 to 5.
        issues: Words of :data:`ISSUES`; an imported session may bring others.
        correction: The answer as it should have been; nobody learns from it before it was reviewed.
    """

    stars: int
    comment: str = ""
    issues: tuple[str, ...] = ()
    correction: str = ""


def implied(status: str, duration: float, retries: int) -> int | None:
    """The stars that a session's course implies, by L2's table.

    A failure is 1; a success after retries or in more than 30 s is 3, in 10 to 30 s 4, and in less than 10 s 5.
    A client that left says nothing about the answer.
    """
    if status == "cancelled":
        return None
    if status != "ok":
        return 1
    if retries or duration > SLOW_SECONDS:
        return 3
    return 4 if duration >= QUICK_SECONDS else 5


def plain(text: str) -> bool:
    """Whether every database takes ``text``: it has no NUL and no half of a surrogate pair."""
    return "\0" not in text and text == text.encode("utf8", "replace").decode("utf8")


def clean(text: str) -> str:
    """``text`` as every database takes it: no NUL, no half of a surrogate pair, no space around it."""
    return text.encode("utf8", "replace").decode("utf8").replace("\0", "").strip()
