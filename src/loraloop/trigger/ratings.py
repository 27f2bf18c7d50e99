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
    """What a person thinks of a conversation: the stars that it was given first."""

    rater: str
    stars: int


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
    """Opinions, one per conversation: its first rating, in the order of these.

    Ratings of one conversation resemble each other, so they are one opinion. Its first rating stays the opinion when
    others follow: a bet that was placed must not be placed again at another stake.

    Args:
        ratings: As :func:`in_order` gives them.
        most: How many opinions of a person count, from the first; ``None``: all.
    """
    known: set[str] = set()
    found, counts = [], Counter[str]()
    for _, each, stars in ratings:
        if each.conversation in known:
            continue
        known.add(each.conversation)
        counts[person(each)] += 1
        if most is None or counts[person(each)] <= most:
            found.append(Opinion(person(each), stars))
    return found


def person(outcome: Outcome) -> str:
    """The rater's name in counts; an unknown rater has the conversation's."""
    return f"rater {outcome.rater}" if outcome.rater is not None else f"conversation {outcome.conversation}"


def shortage(ratings: int, raters: int, min_ratings: int, min_raters: int) -> str | None:
    """What the ratings lack to be judged, how much of it, and the key that sets it; ``None`` if they are enough."""
    lacking = []
    if ratings < min_ratings:
        more = min_ratings - ratings
        lacking.append(f"{more} more rating{'s' * (more != 1)} needed (trigger.min_ratings={min_ratings})")
    if raters < min_raters:
        who = "person" if min_raters - raters == 1 else "people"
        key = f"trigger.min_raters={min_raters}; requests name them as `user`"
        lacking.append(f"ratings of {min_raters - raters} more {who} needed ({key})")
    return f"{count(ratings, raters)}; {', '.join(lacking)}" if lacking else None


def count(ratings: int, raters: int) -> str:
    """Ratings and raters in words: ``1 rating of 1 rater``."""
    return f"{ratings} rating{'s' * (ratings != 1)} of {raters} rater{'s' * (raters != 1)}"


def raters(found: Sequence[Opinion]) -> int:
    """The number of people who gave opinions."""
    return len({each.rater for each in found})
