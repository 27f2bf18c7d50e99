"""Successive halving whose first rung is a trial's first validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import SuccessiveHalvingPruner
    from optuna.trial import FrozenTrial


class SuccessiveHalving:
    """Asynchronous successive halving (ASHA, Li et al., arXiv 1810.05934), as Optuna decides it.

    At its first validation, and whenever it has taken ``reduction_factor`` times as many steps as at the look before,
    a trial goes on only if its loss is among the best ``1 / reduction_factor`` of those that trials had at that look so
    far; one of the first few goes on if it is the best. Trials that were first looked at after other steps do not
    compete with it. Optuna's own pruner looks first at a fixed step, or not before a trial has ended, which in a pack
    is too late.

    Args:
        reduction_factor: One in so many goes on.
        min_early_stopping_rate: How many looks every trial survives.
        bootstrap_count: How many trials a look needs before one goes on.
    """

    def __init__(self, reduction_factor: int = 2, min_early_stopping_rate: int = 0, bootstrap_count: int = 0) -> None:
        self._settings = {
            "reduction_factor": reduction_factor,
            "min_early_stopping_rate": min_early_stopping_rate,
            "bootstrap_count": bootstrap_count,
        }
        self._from(1)  # refuses what cannot be

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is given up at the step that it reported last."""
        if not trial.intermediate_values:
            return False
        first = min(trial.intermediate_values)
        return self._from(max(1, first)).prune(cast("Study", _Alike(study, first)), trial)

    def _from(self, first: int) -> SuccessiveHalvingPruner:
        from optuna.pruners import SuccessiveHalvingPruner

        return SuccessiveHalvingPruner(min_resource=first, **self._settings)


@dataclass(frozen=True, slots=True)
class _Alike:
    """A study of the trials alone that were first looked at after ``first`` steps."""

    study: Study
    first: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.study, name)

    def get_trials(self, **options: Any) -> list[FrozenTrial]:
        return [
            each for each in self.study.get_trials(**options) if min(each.intermediate_values, default=0) == self.first
        ]
