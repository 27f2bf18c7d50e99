"""What an answer is worth, by rules that anybody can check: for trainers that learn from their own answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Literal

from loraloop.core import tool_calls
from loraloop.protocols import Reward
from loraloop.records import Row

Name = Literal["correct", "tool_calls", "json", "length", "similar", "numbers"]
Scorer = Callable[[Row, str], float]
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def scorer(weights: Mapping[Name, float], correct: Reward) -> Scorer:
    """The weighted sum of the named rewards of an answer to a row.

    Args:
        weights: Of each reward, each of which is 0..1.
        correct: The source's own rule.
    """
    rules: dict[Name, Scorer] = {
        "correct": lambda row, answer: float(correct(row.example, answer)),
        "tool_calls": _calls,
        "json": _json,
        "length": _length,
        "similar": _similar,
        "numbers": _numbers,
    }
    asked = {name: weight for name, weight in weights.items() if weight}
    return lambda row, answer: sum(weight * rules[name](row, answer) for name, weight in asked.items())


def constant(rewards: Sequence[float], group: int) -> bool:
    """Whether the rewards are equal within each group, so that they teach nothing."""
    return all(len(set(rewards[start : start + group])) == 1 for start in range(0, len(rewards), group))


def _calls(row: Row, answer: str) -> float:
    """The share of four questions about the calls: valid, right names, right arguments, all right."""
    expected = row.example.messages[-1].tool_calls
    if not expected:
        try:
            return float(not tool_calls.read(answer))
        except ValueError:
            return 0.0
    found = tool_calls.judge(answer, expected, row.example.tools)
    return (found.valid + found.names + found.arguments + found.right) / 4


def _json(row: Row, answer: str) -> float:
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def _length(row: Row, answer: str) -> float:
    """1 up to the length of the expected answer, and less for longer ones."""
    return min(1.0, (len(row.completion) + 1) / (len(answer) + 1))


def _similar(row: Row, answer: str) -> float:
    """The share of both texts, the answer and the expected one, that agrees in order (difflib's ratio)."""
    return SequenceMatcher(None, row.completion.strip(), answer.strip(), autojunk=False).ratio()


def _numbers(row: Row, answer: str) -> float:
    """The mean of ``1 / (1 + |difference|)`` of the numbers in the answer and the expected one; 0 for other words."""
    wanted = row.completion.strip()
    if _NUMBER.split(wanted) != _NUMBER.split(answer.strip()):
        return 0.0
    pairs = zip(_NUMBER.findall(wanted), _NUMBER.findall(answer), strict=True)
    near = [1 / (1 + abs(float(one) - float(other))) for one, other in pairs]
    return sum(near) / len(near) if near else 1.0
