"""Whose ratings count, and how many of each person's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from loraloop.core.durations import moment
from loraloop.records import Outcome


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one person made of one conversation: the mean of the stars given in it."""

    rater: str
    stars: float


def in_order(outcomes: Iterable[Outcome]) -> list[tuple[datetime, Outcome, int]]:
    """When ratings were given, what for, and the stars, oldest first.

    In the order of the sessions, a late rating would change what was bet on already. Where nobody can tell when it was
    given, the rating is left out.
    """
    found = []
    for each in outcomes:
        if each.stars is not None:
            try:
                found.append((moment(each.rated or each.time), each, each.stars))
            except ValueError:
                continue
    return sorted(found, key=lambda rating: rating[0])


def opinions(ratings: Iterable[tuple[datetime, Outcome, int]], most: int | None) -> list[Opinion]:
    """Each person's first ``most`` opinions, one for each conversation, in the order in which these were first given.

    Ratings of one conversation resemble each other and are one opinion. Who is not known is somebody of their own in
    each conversation.

    Args:
        ratings: As :func:`in_order` gives them.
        most: Of a person; ``None`` is any number.
    """
    given: dict[tuple[str, str], list[int]] = {}
    for _, each, stars in ratings:
        given.setdefault((person(each), each.conversation), []).append(stars)
    found, counts = [], Counter[str]()
    for (rater, _), all_stars in given.items():
        counts[rater] += 1
        if most is None or counts[rater] <= most:
            found.append(Opinion(rater, sum(all_stars) / len(all_stars)))
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
