"""A rollout's ruling in a sentence that a person understands, from the numbers that it was taken on."""

from __future__ import annotations

from typing import Any, NamedTuple

from loraloop.records import FrozenMap


class Measure(NamedTuple):
    """How a measure is written."""

    key: str
    name: str
    value: str
    unit: str
    factor: float
    digits: int


MEASURES = (
    Measure("completed", "completion", "{:.1%}", "points", 100, 1),
    Measure("success", "success", "{:.1%}", "points", 100, 1),
    Measure("stars", "rating", "{:.2f}", "stars", 1, 2),
)


def promoted(numbers: FrozenMap) -> str:
    """Why it won."""
    clauses = [_against(numbers, measure, "lower") for measure in _telling(numbers)]
    return f"not worse by more than the margins: {'; '.join(clauses)}; {_sizes(numbers)}"


def rolled_back(numbers: FrozenMap) -> str:
    """Why it lost."""
    lost = [measure for measure in MEASURES if (upper := numbers[measure.key]["upper"]) is not None and upper < 0]
    return f"worse: {'; '.join(_against(numbers, measure, 'upper') for measure in lost)}; {_sizes(numbers)}"


def uneven(numbers: FrozenMap, level: float) -> str:
    """Why its arms cannot be compared."""
    arm, everyone = numbers["canary"]["conversations"], _conversations(numbers)
    return (
        f"the assignment is not as it was meant: {arm} of {everyone} conversations met the canary where "
        f"{numbers['share']:.4g} of them should (p {numbers['mismatch_p']:.2g} < canary.mismatch_alpha={level:g}), so "
        "the versions cannot be compared"
    )


def crossed(numbers: FrozenMap) -> str:
    """Why what is left of its arms cannot be compared."""
    count, arm = numbers["crossed_conversations"], numbers["canary"]["conversations"]
    return (
        f"{count} conversations met more than one version, {arm} the canary alone: an assignment is for a whole "
        "conversation, and without those that crossed over the versions cannot be compared"
    )


def few(numbers: FrozenMap, least: int) -> str:
    """That there is too little data."""
    return f"{numbers['canary']['sessions']} sessions of the canary; canary.min_sessions={least}"


def open_yet(numbers: FrozenMap) -> str:
    """What is known while nothing is proven."""
    return f"undecided: {'; '.join(_between(numbers, measure) for measure in _telling(numbers))}; {_sizes(numbers)}"


def _telling(numbers: FrozenMap) -> list[Measure]:
    """The measures without completion, where every session came to an end."""
    every = all(numbers[arm]["completed"] in (None, 1) for arm in ("canary", "stable"))
    return [measure for measure in MEASURES if measure.key != "completed" or not every]


def _against(numbers: FrozenMap, measure: Measure, bound: str) -> str:
    figures: FrozenMap = numbers[measure.key]
    words = "at least" if bound == "lower" else "at most"
    tail = f", margin {_amount(-figures['margin'], measure)}" if bound == "lower" else ""
    return f"{_pair(numbers, measure)} ({words} {_amount(figures[bound], measure)} {measure.unit}{tail})"


def _between(numbers: FrozenMap, measure: Measure) -> str:
    figures: FrozenMap = numbers[measure.key]
    if figures["lower"] is None:
        return f"no {measure.name} of both versions yet"
    ends = f"{_amount(figures['lower'], measure)} to {_amount(figures['upper'], measure)}"
    margin = _amount(-figures["margin"], measure)
    return f"{_pair(numbers, measure)} ({ends} {measure.unit}, margin {margin})"


def _pair(numbers: FrozenMap, measure: Measure) -> str:
    canary, stable = (measure.value.format(numbers[arm][measure.key]) for arm in ("canary", "stable"))
    return f"{measure.name} {canary} against {stable}"


def _amount(value: float, measure: Measure) -> str:
    return f"{measure.factor * value:+.{measure.digits}f}"


def _sizes(numbers: FrozenMap) -> str:
    def size(arm: str) -> Any:
        return numbers[arm]["conversations"]

    return f"{size('canary')} and {size('stable')} conversations"


def _conversations(numbers: FrozenMap) -> int:
    return int(numbers["canary"]["conversations"] + numbers["stable"]["conversations"])
