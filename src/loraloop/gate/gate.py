"""The gate: an adapter is promoted if it beats what it would replace by a margin and by more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from loraloop.core import paired
from loraloop.core.metrics import METRICS
from loraloop.core.part import part
from loraloop.core.suggest import nearest
from loraloop.gate.comparison import DECIMALS, Comparison, compare, value, without_examples
from loraloop.gate.general import FORGOT, GENERAL, describe, forgot
from loraloop.gate.slices import Worse, worse_slices
from loraloop.records import General, Score, Verdict

Reference = Literal["base", "few_shot", "champion"]
SMALLEST_P = 1e-4
"""Smaller ones are not written out; nothing is decided by them."""
FEW_SHOT_WAY_OUT = "train with evaluation.few_shot=3, or leave few_shot out of gate.must_beat"
WORSE = "worse_slices"
"""Under which a verdict's numbers hold the slices that got worse."""


@part
class Gate:
    """Passes a candidate that beats every reference in ``must_beat`` on the same held-out rows.

    To beat is to be better by ``margin``, and by more than chance gives: a one-sided paired test at level ``max_p``.
    Each reference is tested at that level, because all of them have to be beaten (Berger 1982, Technometrics 24:295).

    Attributes:
        metric: Name in :data:`loraloop.core.metrics.METRICS`.
        margin: Smallest gain: a difference in the metric's own unit, or for a metric of which less is better, whose
            scale depends on the data, the share of the reference's value by which the candidate is lower.
        max_p: Largest probability with which a candidate that is no better may seem so; 1 leaves the test out.
        must_beat: Whom to beat: ``base``, ``few_shot`` (the base with examples, which ``evaluation.few_shot`` measures)
            and ``champion``; one that does not exist yet is passed over.
        min_rows: Fewest held-out rows on which a verdict stands.
        slices: Whether a task that got worse than with the champion, or without one than with the base, refuses the
            adapter, is only told, or is not looked for. It is tested at ``max_p``, on ``min_rows`` rows or more.
        slice_margin: How far a task may fall, in the unit of ``margin``.
        general: Whether an adapter that forgets general instructions (``evaluation.general``) is refused or only told.
        general_margin: By how many nats a token their loss, of all or of one kind, may rise: it is forgetting where
            even the lower end of the 95% interval is above that, or where fewer rules are kept by more than chance.
    """

    metric: str = "task_accuracy"
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    max_p: Annotated[float, Field(gt=0, le=1)] = 0.05
    must_beat: Annotated[tuple[Reference, ...], Field(min_length=1)] = ("base", "champion")
    min_rows: Annotated[int, Field(ge=1)] = 20
    slices: Literal["none", "warn", "refuse"] = "warn"
    slice_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    general: Literal["warn", "refuse"] = "warn"
    general_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"there is no such metric{nearest(metric, METRICS)}: choose one of {', '.join(METRICS)}")
        return metric

    def decide(
        self,
        candidate: Score,
        base: Score,
        champion: Score | None = None,
        few_shot: Score | None = None,
        general: General | None = None,
    ) -> Verdict:
        """Judge ``candidate``; whatever cannot be compared (NaN, too few rows, other rows) does not pass.

        Args:
            candidate: The adapter's score.
            base: Of its base, on the same rows.
            champion: Likewise; ``None`` if there is none.
            few_shot: Of the base with examples; ``None`` if that was not measured.
            general: What became of the base's general ability; ``None`` if that was not measured.
        """
        verdict = self._compared(candidate, base, champion, few_shot)
        return verdict if general is None else self._with_general(verdict, general)

    def _with_general(self, verdict: Verdict, general: General) -> Verdict:
        """The verdict with what is said of general ability."""
        forgotten = forgot(general, self.general_margin)
        weight = "refused" if self.general == "refuse" else "a warning"
        told = f": {weight} by gate.general={self.general}" if forgotten else ""
        numbers = {**verdict.numbers, GENERAL: asdict(general)} | ({FORGOT: forgotten} if forgotten else {})
        reason = f"{verdict.reason}; {describe(general, forgotten)}{told}"
        return Verdict(verdict.passed and not (forgotten and self.general == "refuse"), reason, numbers)

    def _compared(self, candidate: Score, base: Score, champion: Score | None, few_shot: Score | None) -> Verdict:
        if few_shot is not None:
            few_shot = without_examples(few_shot, candidate)
        scores = {"base": base, "few_shot": few_shot, "champion": champion}
        references: dict[str, Score] = {name: score for name in self.must_beat if (score := scores[name]) is not None}
        numbers = self._numbers(candidate, references)
        problem = self._incomparable(candidate, references)
        if problem is not None:
            return Verdict(False, problem, numbers)
        found = {name: compare(self.metric, candidate, score) for name, score in references.items()}
        numbers |= {
            f"{name}/{key}": value
            for name, each in found.items()
            for key, value in asdict(each).items()
            if key != "gain"
        }
        passed = all(self._beaten(each) for each in found.values())
        before, reference = ("champion", champion) if champion else ("base", base)
        worse = self._worse(candidate, reference)
        if worse:
            numbers[WORSE] = {task: asdict(each) for task, each in worse.items()}
        reason = self._reason(candidate, references, found) + self._told(worse, before)
        return Verdict(passed and not (worse and self.slices == "refuse"), reason, numbers)

    def _worse(self, candidate: Score, reference: Score) -> dict[str, Worse]:
        if self.slices == "none":
            return {}
        return worse_slices(
            self.metric, candidate, reference, margin=self.slice_margin, max_p=self.max_p, min_rows=self.min_rows
        )

    def _told(self, worse: Mapping[str, Worse], before: str) -> str:
        if not worse:
            return ""
        tasks = " and ".join(f"{task} ({each})" for task, each in worse.items())
        weight = "refused" if self.slices == "refuse" else "a warning"
        return f"; worse than the {before} on {tasks}: {weight} by gate.slices={self.slices}"

    def _beaten(self, found: Comparison) -> bool:
        return found.gain > 0 and found.gain >= self._asked and found.p <= self.max_p

    @property
    def _asked(self) -> float:
        return round(self.margin, DECIMALS)

    def _incomparable(self, candidate: Score, references: dict[str, Score]) -> str | None:
        if "few_shot" in self.must_beat and "few_shot" not in references:
            return f"few_shot was not measured beside the candidate: {FEW_SHOT_WAY_OUT}"
        everyone = {"candidate": candidate, **references}
        for name, score in everyone.items():
            if self.metric not in score.values:
                return f"{self.metric} of the {name} was not measured, so nothing can be compared"
            if not math.isfinite(value(self.metric, score)):
                return f"{self.metric} of the {name} is {value(self.metric, score)}, which cannot be compared"
        rows = {name: score.rows for name, score in everyone.items()}
        if min(rows.values()) < self.min_rows:
            return (
                f"measured on {min(rows.values())} rows, fewer than gate.min_rows={self.min_rows}: collect more, or "
                "hold out more (dataset.validation_share=0.4); evaluation.max_rows and labels of bad answers limit "
                "them too"
            )
        for name, score in references.items():
            found = paired.same_rows(candidate, score)
            if found is None:
                common = len(paired.pairs(candidate, score))
                counts = f"candidate {candidate.rows}, {name} {score.rows}, {common} in common"
                return f"not measured on the same held-out rows ({counts})"
            if self.max_p < 1 and not paired.gains(self.metric, found):
                return f"{self.metric} was not kept row by row when the {name} was measured: measure it again"
        return None

    def _reason(self, candidate: Score, references: dict[str, Score], found: Mapping[str, Comparison]) -> str:
        head = f"{self.metric} {_number(value(self.metric, candidate))}"
        if not references:
            return f"{head}: there is no champion to beat yet"
        parts = [
            f"{'beats' if self._beaten(found[name]) else 'does not beat'} {name} {_number(value(self.metric, score))}, "
            f"{self._against(found[name].gain)}{self._chance(found[name])}"
            for name, score in references.items()
        ]
        return f"{head} {' and '.join(parts)}"

    def _chance(self, found: Comparison) -> str:
        if self.max_p == 1 or found.gain <= 0:
            return ""
        if found.p <= self.max_p:
            return " (p <0.0001)" if found.p < SMALLEST_P else f" (p {found.p:.2g})"
        digits = 2 if f"{found.p:.2g}" != f"{self.max_p:.2g}" else 6
        return f" (p {found.p:.{digits}g} > {self.max_p:.{digits}g})"

    def _against(self, gain: float) -> str:
        asked = self._asked
        if gain <= 0:
            return f"no gain where {_number(asked)} is asked for"
        # More digits where four would show two different numbers as the same.
        digits = 4 if gain == asked or _number(gain) != _number(asked) else 12
        return f"by {gain:.{digits}g} {'>=' if gain >= asked else '<'} {asked:.{digits}g}"

    def _numbers(self, candidate: Score, references: dict[str, Score]) -> dict[str, Any]:
        numbers: dict[str, Any] = {"metric": self.metric, "margin": self.margin, "rows": candidate.rows}
        numbers["candidate"] = value(self.metric, candidate)
        for name, score in references.items():
            numbers[name] = value(self.metric, score)
        return numbers


def _number(value: float) -> str:
    return f"{value:.4g}"
