"""Which ratings a trigger counts, and whose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from loraloop.core.durations import moment
from loraloop.records import Outcome


@dataclass(frozen=True, slots=True)
class Opinion:
    """One person's rating of one conversation: the mean of the stars that they gave in it."""

    rater: str
    stars: float


def in_order(outcomes: Iterable[Outcome]) -> list[tuple[datetime, Outcome, int]]:
    """The time of each rating, its session and its stars, oldest rating first.

    The order is that of the ratings, not of the sessions: a late rating must not change a bet that was placed already.
    A rating without a readable time is left out.
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
    """Opinions, one per person and conversation, in the order of their first ratings.

    Ratings of one conversation resemble each other, so they are one opinion. An unknown rater counts as another person
    in each conversation.

    Args:
        ratings: As :func:`in_order` gives them.
        most: How many opinions of a person count, from the first; ``None``: all.
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
    """The rater's name in counts; an unknown rater has the conversation's."""
    return f"rater {outcome.rater}" if outcome.rater is not None else f"conversation {outcome.conversation}"


def shortage(ratings: int, raters: int, min_ratings: int, min_raters: int) -> str | None:
    """Which minimum the ratings do not reach; ``None`` if they reach both."""
    if ratings < min_ratings:
        return f"{count(ratings, raters)}; trigger.min_ratings={min_ratings}"
    if raters < min_raters:
        return f"{count(ratings, raters)}; trigger.min_raters={min_raters}"
    return None


def count(ratings: int, raters: int) -> str:
    """Ratings and raters in words: ``1 rating of 1 rater``."""
    return f"{ratings} rating{'s' * (ratings != 1)} of {raters} rater{'s' * (raters != 1)}"


def raters(found: Sequence[Opinion]) -> int:
    """The number of people who gave opinions."""
    return len({each.rater for each in found})
