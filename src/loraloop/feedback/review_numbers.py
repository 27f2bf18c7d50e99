"""Deciding on proposed corrections by their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from loraloop.errors import ConfigError
from loraloop.feedback import edit
from loraloop.feedback.review_queue import Item
from loraloop.feedback.review_terminal import keep
from loraloop.feedback.store import Store
from loraloop.feedback.terminal import printable

ALL = "all"
Asked = Sequence[int] | str | None
"""Numbers of proposals, one of them, or ``all``."""


def decide(store: Store, waiting: Sequence[Item], accept: Asked, reject: Asked) -> None:
    """Decide on the proposals that are named and print how many were decided on.

    Of each session ``accept=all`` takes the first proposal that can be accepted; ``reject=all`` rejects every proposal.

    Raises:
        ConfigError: One does not wait, or cannot be accepted: nothing is decided.
    """
    items = {each.proposal.id: each for each in waiting}
    accepted = _fitting(waiting) if accept == ALL else _numbers(accept)
    rejected = list(items) if reject == ALL else _numbers(reject)
    _check(items, accepted, rejected)
    kept = sum(keep(store, items[each].proposal, "accepted") for each in accepted)
    refused = sum(keep(store, items[each].proposal, "rejected") for each in rejected)
    print(f"{kept} accepted, {refused} rejected", end=", ")


def _numbers(asked: Asked) -> list[Any]:
    """The numbers as they were given: some may be none."""
    return list(asked) if isinstance(asked, list) else [asked] if asked else []


def _fitting(waiting: Sequence[Item]) -> list[int]:
    """The first proposal of each session that can be accepted; those that cannot are printed."""
    found: dict[str, int] = {}
    for item in waiting:
        if misfit := _misfit(item):
            print(f"proposal {item.proposal.id} is not accepted: {misfit}")
        else:
            found.setdefault(item.session.id, item.proposal.id)
    return list(found.values())


def _misfit(item: Item) -> str:
    return printable(edit.proposed(item.proposal.text, item.session).misfit)


def _check(items: Mapping[int, Item], accept: Sequence[int], reject: Sequence[int]) -> None:
    known = [each for each in accept if each in items]
    count = Counter(items[each].session.id for each in known)
    same = sorted(each for each in known if count[items[each].session.id] > 1)
    problems = [f"proposal {each} does not wait for review" for each in (*accept, *reject) if each not in items]
    problems += [f"proposal {each} is named in accept and in reject" for each in sorted(set(accept) & set(reject))]
    problems += [f"proposals {', '.join(map(str, same))}: a session takes one of its proposals"] * bool(same)
    problems += [
        f"proposal {each} cannot be accepted: {misfit} (edit it in a terminal or on /review, or reject it)"
        for each in known
        if (misfit := _misfit(items[each]))
    ]
    if problems:
        numbers = ", ".join(map(str, sorted(items))) or "none"
        raise ConfigError(*problems[:-1], f"{problems[-1]}; these wait: {numbers} (stage=review shows them)")
