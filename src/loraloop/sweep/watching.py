"""A study while it is at work, as a table: trials, their validation curves, the best so far and the time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from loraloop.core import console
from loraloop.sweep import clock
from loraloop.sweep.report import assignments
from loraloop.sweep.runner import BATCH, CLONE_OF, REASON, RERUN_OF, TOTAL

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial
    from rich.console import RenderableType

BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
WIDTH = 12  # characters of a curve, so that a row fits into 80 columns
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
TOLD = {RERUN_OF: "again after", CLONE_OF: "clone of"}
OPEN = ("RUNNING", "WAITING")
COLUMNS = ("trial", "state", "value", "losses", "", "took", "parameters")


@dataclass(frozen=True, slots=True)
class Watched:
    """A study at one moment.

    Attributes:
        places: Trials that were handed out together with those that run; 0 while none runs.
        seconds_left: From the average of those that completed; ``None`` before the first, or at the end.
        now: By the clock that the trials' times are of.
    """

    name: str
    trials: tuple[FrozenTrial, ...]
    total: int | None
    best: FrozenTrial | None
    places: int
    seconds_left: float | None
    lower: bool
    now: datetime

    @property
    def running(self) -> int:
        """Trials that run."""
        return sum(trial.state.name == "RUNNING" for trial in self.trials)

    @property
    def done(self) -> int:
        """Trials that have ended for good."""
        return sum(trial.state.name not in OPEN for trial in self.trials if _own(trial))


def look(study: optuna.Study) -> Watched:
    """Read the study from its database."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    trials = tuple(study.get_trials(deepcopy=False))
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    several = len(study.directions) > 1
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    places = max((int(trial.user_attrs.get(BATCH, 1)) for trial in running), default=0)
    total = study.user_attrs.get(TOTAL)
    return Watched(
        name=study.study_name,
        trials=trials,
        total=None if total is None else int(total),
        best=study.best_trial if complete and not several else None,
        places=places,
        seconds_left=_left(complete, trials, total, places),
        lower=several or study.direction == StudyDirection.MINIMIZE,
        now=clock.now(study),
    )


def _own(trial: FrozenTrial) -> bool:
    """Whether it is one of the study's ``n_trials``, and no other one tried again."""
    return RERUN_OF not in trial.user_attrs and CLONE_OF not in trial.user_attrs


def _left(
    complete: Sequence[FrozenTrial], trials: Sequence[FrozenTrial], total: int | None, places: int
) -> float | None:
    took = [trial.duration.total_seconds() for trial in complete if trial.duration]
    still = sum(trial.state.name in OPEN for trial in trials)
    still += max(0, (total or 0) - sum(_own(trial) for trial in trials))
    if not took or not still:
        return None
    return sum(took) / len(took) * math.ceil(still / max(1, places))


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The last ``width`` values as a line of blocks, without those that are no numbers."""
    shown = [value for value in values if math.isfinite(value)][-width:]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1)) if span else 0] for value in shown)


def draw(watched: Watched) -> RenderableType:
    """The table with what stands above it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        right = name in ("trial", "value", "")
        view.add_column(name, justify="right" if right else "left", no_wrap=name != COLUMNS[-1], overflow="fold")
    for trial in watched.trials:
        best = watched.best is not None and trial.number == watched.best.number
        *row, parameters, note = cells(trial, lower=watched.lower, now=watched.now)
        row.append("\n".join(filter(None, (parameters, note))))
        view.add_row(*map(Text, row), style="bold green" if best else None)
    return Group(*(Text(line) for line in heading(watched)), view)


def heading(watched: Watched) -> list[str]:
    """Study, progress and time left; the best trial so far."""
    of = f" of {watched.total}" if watched.total else ""
    places = f", {watched.running} running in {watched.places} places" if watched.places else ""
    left = f", about {console.duration(watched.seconds_left)} left" if watched.seconds_left is not None else ""
    best = "no best yet"
    if watched.best is not None:
        best = f"best {watched.best.value:.6g}, trial {watched.best.number}: {assignments(watched.best.params)}"
    return [f"study {watched.name}: {watched.done}{of} trials done{places}{left}", best]


def cells(trial: FrozenTrial, *, lower: bool, now: datetime) -> list[str]:
    """A trial's row. Where a study maximises, losses were reported negated; they are shown as they were."""
    losses = [value if lower else -value for _, value in sorted(trial.intermediate_values.items())]
    values = ", ".join(f"{value:.4g}" for value in trial.values) if trial.values else "-"
    took = trial.duration or (now - trial.datetime_start if trial.datetime_start else None)
    return [
        str(trial.number),
        STATES[trial.state.name],
        values if trial.state.name == "COMPLETE" else "-",
        sparkline(losses),
        f"{losses[-1]:.4g}" if losses else "-",
        console.duration(took.total_seconds()) if took and took > timedelta() else "-",  # stopped by another clock
        assignments(trial.params or trial.system_attrs.get("fixed_params", {})),
        _note(trial),
    ]


def _note(trial: FrozenTrial) -> str:
    attributes: dict[str, Any] = trial.user_attrs
    again = next((f"{what} trial {attributes[key]}" for key, what in TOLD.items() if key in attributes), "")
    return str(attributes.get(REASON, again)).partition("\n")[0]
