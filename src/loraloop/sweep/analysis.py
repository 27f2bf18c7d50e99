"""What a study has found: its best trials, which parameters mattered, and pictures of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloop.core.passwords import mask
from loraloop.core.suggest import nearest
from loraloop.errors import DataError
from loraloop.sweep import storage
from loraloop.sweep.trial import WORK

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

SAMPLE = 2
"""Completed trials that importances and coordinates need at least."""


def load(name: str, url: str) -> optuna.Study:
    """A study by name.

    Args:
        name: The study's.
        url: Its database, from :func:`loraloop.sweep.storage.address`.

    Raises:
        DataError: There is none of that name; the message lists those that there are.
    """
    import optuna

    backend = storage.connect(url)
    with storage.explained(url):
        names = optuna.get_all_study_names(backend)
    if name not in names:
        raise DataError(
            f"study={name}: {mask(url)} holds no such study{nearest(name, names)}; "
            f"there {'are' if len(names) != 1 else 'is'} {', '.join(sorted(names)) or 'none yet'}"
        )
    return optuna.load_study(study_name=name, storage=backend)


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Completed trials, the best first; with several objectives those that no other dominates, by the first one."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    several = len(study.directions) > 1
    trials = study.best_trials if several else study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    downwards = study.directions[0] == StudyDirection.MINIMIZE
    return sorted(trials, key=lambda trial: trial.values[0] if downwards else -trial.values[0])


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of each parameter in the first objective's variation among the better trials, by PED-ANOVA.

    Watanabe et al., "PED-ANOVA", IJCAI 2023 (arXiv 2304.10255), as Optuna computes it. Empty for too few trials or
    where nothing varied.
    """
    import optuna

    if len(ranked(study)) < SAMPLE:
        return {}
    try:
        return dict(optuna.importance.get_param_importances(study, target=_first(study)))
    except (ValueError, RuntimeError):  # Optuna's answer to trials that are all alike
        return {}


@dataclass(frozen=True, slots=True)
class Savings:
    """What a study did not have to train, because trials were pruned.

    Attributes:
        steps: Optimizer steps of whole trials that were not taken.
        share: Of the steps that all trials would have taken.
        samples: Training rows of those steps, with repetition.
        seconds: Of training, at the speed of the whole trials.
    """

    steps: int
    share: float
    samples: int
    seconds: float


def savings(study: optuna.Study) -> Savings | None:
    """What pruning saved; ``None`` where no trial was pruned, or none ended that says how long a whole one is."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    ended = [
        trial.user_attrs[WORK] for trial in trials if trial.state == TrialState.COMPLETE and WORK in trial.user_attrs
    ]
    pruned = [trial.last_step or 0 for trial in trials if trial.state == TrialState.PRUNED]
    if not ended or not pruned:
        return None
    whole = max(work["steps"] for work in ended)
    saved = sum(max(0, whole - steps) for steps in pruned)
    taken = sum(work["steps"] for work in ended)
    return Savings(
        steps=saved,
        share=saved / (taken + len(pruned) * whole),
        samples=saved * max(work["rows_per_step"] for work in ended),
        seconds=saved * sum(work["seconds"] for work in ended) / taken,
    )


def figures(study: optuna.Study) -> Iterator[tuple[str, Any]]:
    """Optuna's plots as matplotlib figures by name: history, importances, slices, parallel coordinates or the front."""
    import logging
    import warnings

    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning
    from optuna.visualization import matplotlib as plots

    logging.getLogger("matplotlib.category").setLevel(logging.WARNING)  # Optuna hands it choices as texts
    trials = ranked(study)
    if not trials:
        return
    target = _first(study)
    named = {"target": target, "target_name": "first objective"} if target else {}
    drawn: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {"history": (plots.plot_optimization_history, named)}
    if len(trials) >= SAMPLE:
        drawn["slices"] = (plots.plot_slice, named)
        drawn["parallel_coordinates"] = (plots.plot_parallel_coordinate, named)
        if importances(study):
            drawn["importances"] = (plots.plot_param_importances, named)
        if target is not None and len(study.directions) <= 3:
            drawn["pareto_front"] = (plots.plot_pareto_front, {})
    for name, (plot, options) in drawn.items():
        with warnings.catch_warnings(), pyplot.rc_context({"figure.figsize": (9, 5)}):
            warnings.simplefilter("ignore", ExperimentalWarning)
            plot(study, **options)
            figure = pyplot.gcf()
        yield name, figure
        pyplot.close(figure)


def _first(study: optuna.Study) -> Any:
    return (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
