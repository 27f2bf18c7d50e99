"""Whose ratings count, and how many of each person's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loraloop.records import Outcome


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one person made of one conversation: the mean of the stars given in it."""

    rater: str
    stars: float


def opinions(outcomes: Iterable[Outcome], most: int | None) -> list[Opinion]:
    """Each person's first ``most`` opinions, one for each conversation, in the order in which these began.

    Ratings of one conversation resemble each other and are one opinion. Who is not known is somebody of their own in
    each conversation.
    """
    given: dict[tuple[str, str], list[int]] = {}
    for each in outcomes:
        if each.stars is not None:
            given.setdefault((person(each), each.conversation), []).append(each.stars)
    found, counts = [], Counter[str]()
    for (rater, _), stars in given.items():
        counts[rater] += 1
        if most is None or counts[rater] <= most:
            found.append(Opinion(rater, sum(stars) / len(stars)))
    return found


def person(outcome: Outcome) -> str:
    """Who rated; a conversation of nobody known is a person."""
    return f"rater {outcome.rater}" if outcome.rater is not None else f"conversation {outcome.conversation}"


def shortage(ratings: int, raters: int, min_ratings: int, min_raters: int) -> str | None:
    """Why there are not enough ratings to decide on, if there are not."""
    if ratings < min_ratings:
        return f"{count(ratings, raters)}; trigger.min_ratings={min_ratings}"
    if raters < min_raters:
        return f"{count(ratings, raters)}; trigger.min_raters={min_raters}"
    return None


def count(ratings: int, raters: int) -> str:
    """As people say it."""
    return f"{ratings} rating{'s' * (ratings != 1)} of {raters} rater{'s' * (raters != 1)}"


def raters(found: Sequence[Opinion]) -> int:
    """How many people."""
    return len({each.rater for each in found})
