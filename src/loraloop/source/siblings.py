"""Attempts at one task with their rewards: a failed one learns what one that succeeded did where the two part."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loraloop.records import Example, Message, Quarantined
from loraloop.source.forms.draft import as_bool

GOOD = 1.0
"""Reward of an attempt that succeeded; benchmarks of agents give 0 or 1."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempts:
    """Which rows are attempts, and how they ended.

    Attributes:
        rated: What each is called in messages, with its reward, by the identity of its provenance.
    """

    rated: dict[int, tuple[str, float]] = field(default_factory=dict)

    def add(self, item: str, example: Example, value: Any) -> None:
        """Note the reward of an attempt.

        Raises:
            ValueError: It is no number.
        """
        said = as_bool(value)
        try:
            reward = float(value if said is None else said)
        except (TypeError, ValueError):
            raise ValueError(f"the reward {str(value)[:40]!r} is no number") from None
        self.rated[id(example.provenance)] = (item, reward)

    def settle(self, where: str, examples: Sequence[Example], quarantined: list[Quarantined]) -> list[Example]:
        """The attempts that succeeded, and of those that failed what :func:`instead` makes; the others are set aside.

        Siblings have one origin. Of several that succeeded the one that goes the same way longest counts.
        """
        good: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            if self._reward(example) >= GOOD and example.origin:
                good[example.origin].append(example)
        made: list[Example] = []
        corrected: list[Example] = []
        for example in examples:
            siblings = good[example.origin]
            if self._reward(example) >= GOOD:
                made.append(example)
            elif taught := list(filter(None, (instead(example, sibling) for sibling in siblings))):
                corrected.append(max(taught, key=lambda each: len(each.messages)))
                made.append(corrected[-1])
            else:
                item, reward = self.rated[id(example.provenance)]
                lacks = "every sibling that succeeded made its calls" if siblings else "no sibling succeeded"
                quarantined.append(Quarantined(item, f"reward {reward:g}, and {lacks}"))
        _log.info("%s: %s", where, _told(made, corrected, len(examples)))
        return made

    def _reward(self, example: Example) -> float:
        return self.rated[id(example.provenance)][1]


def instead(failed: Example, sibling: Example) -> Example | None:
    """A failed attempt up to the first turn whose calls are not the sibling's, with the sibling's turn in its place.

    Only that turn is learned, over the failed one. ``None`` where no turn differs; words are not compared.
    """
    for mine, theirs in zip(_answers(failed.messages), _answers(sibling.messages), strict=False):
        chosen = sibling.messages[theirs]
        if chosen.learned and _calls(failed.messages[mine]) != _calls(chosen):
            past = (replace(message, learned=False) for message in failed.messages[:mine])
            return replace(failed, messages=(*past, chosen), rejected=failed.messages[mine], label=None)
    return None


def _answers(messages: Sequence[Message]) -> Iterable[int]:
    return (place for place, message in enumerate(messages) if message.role == "assistant")


def _calls(message: Message) -> list[tuple[str, Mapping[str, Any]]]:
    return [(call.name, dict(call.arguments)) for call in message.tool_calls]


def _told(made: Sequence[Example], corrected: Sequence[Example], rows: int) -> str:
    learned = sum(message.is_target for example in made for message in example.messages)
    return (
        f"{rows:,} attempts: {len(made) - len(corrected):,} succeeded, {len(corrected):,} failed and take a sibling's "
        f"action, {rows - len(made):,} failed and are set aside; {learned:,} learned turns"
    )
