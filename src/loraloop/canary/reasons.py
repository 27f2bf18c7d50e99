"""The reason of a canary's verdict, in one sentence, from the numbers that it was taken on."""

from __future__ import annotations

from typing import NamedTuple

from loraloop.records import FrozenMap


class Measure(NamedTuple):
    """How a measure is written: ``value`` formats a version's mean, ``factor`` and ``digits`` a difference."""

    key: str
    name: str
    value: str
    unit: str
    factor: float
    digits: int

    def amount(self, difference: float) -> str:
        """A difference with its sign, in ``unit``."""
        return f"{self.factor * difference:+.{self.digits}f}"


MEASURES = (
    Measure("completed", "completion", "{:.1%}", "points", 100, 1),
    Measure("success", "success", "{:.1%}", "points", 100, 1),
    Measure("stars", "rating", "{:.2f}", "stars", 1, 2),
)


def promoted(numbers: FrozenMap) -> str:
    """Why it won: every lower bound is above its margin."""
    return _sentence("not worse by more than the margins", numbers, "at least {lower} {unit}, margin {margin}")


def rolled_back(numbers: FrozenMap) -> str:
    """Why it lost: the measures whose upper bound is below zero."""
    worse = [each for each in MEASURES if (upper := numbers[each.key]["upper"]) is not None and upper < 0]
    return _sentence("worse", numbers, "at most {upper} {unit}", worse)


def undecided(numbers: FrozenMap) -> str:
    """What is known while neither is shown."""
    return _sentence("undecided", numbers, "{lower} to {upper} {unit}, margin {margin}")


def uneven(numbers: FrozenMap, level: float) -> str:
    """Why an assignment that is off its share stops the rollout."""
    canary, stable = (numbers[arm]["conversations"] for arm in ("canary", "stable"))
    return (
        f"the assignment is off its share: {canary} of {canary + stable} conversations met the canary, and "
        f"{numbers['share']:.4g} of them should have (p {numbers['mismatch_p']:.2g} < "
        f"canary.mismatch_alpha={level:g}), so the versions cannot be compared"
    )


def crossed(numbers: FrozenMap) -> str:
    """Why conversations that met both versions stop the rollout."""
    count, canary = numbers["crossed_conversations"], numbers["canary"]["conversations"]
    return (
        f"{count} conversations met more than one version, {canary} the canary alone: a conversation belongs to one "
        "version, and without those that met both the versions cannot be compared"
    )


def too_few(numbers: FrozenMap, least: int) -> str:
    """That there are too few conversations to decide."""
    there = numbers["canary"]["conversations"]
    return f"{there} conversations of the canary; {least - there} more needed (canary.min_sessions={least})"


def _sentence(verdict: str, numbers: FrozenMap, bounds: str, measures: list[Measure] | None = None) -> str:
    """A verdict, a clause for each measure, and how many conversations they are from."""
    clauses = [_clause(numbers, each, bounds) for each in (measures or _told(numbers))]
    sizes = f"{numbers['canary']['conversations']} and {numbers['stable']['conversations']} conversations"
    return f"{verdict}: {'; '.join(clauses)}; {sizes}"


def _told(numbers: FrozenMap) -> list[Measure]:
    """All measures; completion only where some session came to no end."""
    complete = all(numbers[arm]["completed"] in (None, 1) for arm in ("canary", "stable"))
    return [each for each in MEASURES if each.key != "completed" or not complete]


def _clause(numbers: FrozenMap, measure: Measure, bounds: str) -> str:
    figures: FrozenMap = numbers[measure.key]
    if figures["lower"] is None:
        return f"no {measure.name} of both versions yet"
    canary, stable = (measure.value.format(numbers[arm][measure.key]) for arm in ("canary", "stable"))
    amounts = {name: measure.amount(figures[name]) for name in ("lower", "upper")}
    margin = measure.amount(-figures["margin"])
    return f"{measure.name} {canary} against {stable} ({bounds.format(unit=measure.unit, margin=margin, **amounts)})"
