"""The output of a sweep: a line for each trial, a bar, and the file of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic, console
from loraloop.core.passwords import mask
from loraloop.core.progress import show_bar
from loraloop.sweep.study import NO_PRUNER

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from loraloop.sweep.runner import Finished, StudyRunner
    from loraloop.sweep.study import Sweep

RESULTS = "optimization_results.yaml"
WORDS = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def opening(session: StudyRunner) -> str:
    """Which study it is, how far it is, and how to go on with it later."""
    study = session.study
    return (
        f"study    {study.study_name} in {mask(session.url)}: {session.done} of {session.total} trials done "
        f"(go on with it: hydra.sweeper.study_name={study.study_name})"
    )


def plan(sweep: Sweep, at_once: int, *, refilled: bool) -> str:
    """How trials are carried out, and how to have it otherwise; empty where each runs to its end before the next."""
    pruner = str(sweep.pruner["_target_"])
    choices = {"hydra/launcher=basic": at_once > 1, "hydra/sweeper/pruner=none": pruner != NO_PRUNER}
    ways = [way for way, used in choices.items() if used]
    if not ways:
        return ""
    parts = [
        f"up to {at_once} trials train at once" if at_once > 1 else "one trial after the other",
        "every trial runs to its end"
        if pruner == NO_PRUNER
        else f"{pruner.rpartition('.')[2]} ends those that fall behind",
        *(["the next ones take their places"] if refilled else []),
    ]
    return f"plan     {', '.join(parts)} (without: {' '.join(ways)})"


def varied(rows: Sequence[tuple[str, str, str]]) -> None:
    """Print which parameters are varied, over which values, and where that was said."""
    if rows:
        console.table("varied", ["parameter", "values", "from"], rows, numbers=False)


def line(finished: Finished, session: StudyRunner) -> str:
    """A finished trial: number, state, value, parameters and the best so far."""
    verdict = finished.ending
    value = _numbers(verdict.values) if verdict.values else verdict.reason.partition("\n")[0] or "-"
    cells = [f"trial {finished.number:<4}", f"{WORDS[verdict.state]:<8}", value, assignments(finished.params)]
    return "  ".join([*cells, best(session)])


def best(session: StudyRunner) -> str:
    """The best trial so far; with several objectives, how many are not dominated."""
    found = session.best()
    if len(session.study.directions) > 1:
        return f"not dominated: {len(found)}"
    return f"best {_numbers(found[0].values)} (trial {found[0].number})" if found else "no best yet"


def assignments(params: Mapping[str, Any]) -> str:
    """Parameters as a person would type them."""
    return " ".join(
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )


def bar(session: StudyRunner) -> None:
    """Show on a terminal how much of the study is done; nothing where nobody looks."""
    # Drawn once for each batch: a live bar would fight with those of the trials.
    show_bar("sweep", session.done, session.total, best(session))


def write(folder: Path, session: StudyRunner) -> Path:
    """Write the best trials into ``folder`` as hydra-optuna-sweeper does; the file."""
    import yaml

    file = folder / RESULTS
    with atomic.write(file) as stream:
        stream.write(yaml.safe_dump(results(session.best(), len(session.study.directions)), sort_keys=False).encode())
    return file


def results(trials: list[FrozenTrial], objectives: int) -> dict[str, Any]:
    """``best_params`` and ``best_value``, or ``solutions`` with several objectives."""
    if objectives > 1:
        return {"name": "optuna", "solutions": [{"params": t.params, "values": t.values} for t in trials]}
    params, value = (trials[0].params, trials[0].value) if trials else ({}, None)
    return {"name": "optuna", "best_params": params, "best_value": value}


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
