"""How much of what the champion answers right a candidate answers wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loraloop.errors import DataError
from loraloop.records import Score


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Measured on the same golden rows; shares of 0..1.

    Attributes:
        share: Of the rows, the share that the champion answers right and the candidate wrong.
        drops: Per slice, how far the share of right answers fell.
    """

    share: float
    drops: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The larger of the share and the largest drop of a slice, which is compared with the limit."""
        return max(self.share, *self.drops.values(), 0.0)

    def reason(self, limit: float) -> str:
        """A sentence that compares it with the limit."""
        task, drop = max(self.drops.items(), key=lambda each: each[1], default=("", 0.0))
        most = f"; the largest drop of a slice is {drop:.3f} ({task or 'all'})" if drop > 0 else ""
        verdict = "no more than" if self.worst <= limit else "more than"
        return f"forgets {self.share:.3f} of the golden rows{most}: {verdict} policy.max_forgetting={limit:g}"


def forgetting(candidate: Score, champion: Score) -> Forgetting:
    """Compare the answers row by row, and the shares of right answers slice by slice.

    Raises:
        DataError: The two were not measured on the same rows.
    """
    pairs = list(zip(candidate.generations, champion.generations, strict=False))
    same = len(candidate.generations) == len(champion.generations)
    if not pairs or not same or any((ours.task, ours.prompt) != (old.task, old.prompt) for ours, old in pairs):
        raise DataError("candidate and champion were not measured on the same golden rows")
    lost = sum(old.correct and not ours.correct for ours, old in pairs)
    drops = {
        task: max(0.0, old["task_accuracy"] - candidate.slices[task]["task_accuracy"])
        for task, old in champion.slices.items()
    }
    return Forgetting(lost / len(pairs), drops)
