"""Task slices that got worse, whatever the gain over all rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from loraloop.core import paired
from loraloop.gate.comparison import DECIMALS, gain, value
from loraloop.records import Score


@dataclass(frozen=True, slots=True)
class Worse:
    """A slice on which the candidate is worse.

    Attributes:
        p: Probability of so large a drop if neither were better, by the paired test of the gate.
    """

    candidate: float
    reference: float
    p: float

    def __str__(self) -> str:
        """The two values and p."""
        return f"{self.candidate:.4g} after {self.reference:.4g}, p {self.p:.2g}"


def worse_slices(
    metric: str, candidate: Score, reference: Score, *, margin: float, max_p: float, min_rows: int
) -> dict[str, Worse]:
    """The slices, by task, that fell by more than ``margin`` and by more than chance gives.

    Slices of fewer than ``min_rows`` rows, of other rows, or on which the metric was not measured, are passed over; a
    score of one task alone has no slice beside it.
    """
    found = {}
    common = paired.pairs(candidate, reference)
    for task in sorted(candidate.slices.keys() & reference.slices.keys()) if len(candidate.slices) > 1 else ():
        ours, theirs = candidate.slices[task], reference.slices[task]
        drop = -gain(metric, ours, theirs)
        if ours.rows < min_rows or math.isnan(drop) or drop <= round(margin, DECIMALS):
            continue
        rows = [pair for pair in common if pair[0].task == task]
        if not len(rows) == ours.rows == theirs.rows:
            continue
        p = paired.p_value([-each for each in paired.gains(metric, rows)])
        if p <= max_p:
            found[task] = Worse(value(metric, ours), value(metric, theirs), p)
    return found
