"""A sweep as one tracked run: its trials are nested below it, and a later sweep of the same study goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from loraloop.sweep.trial import PARENT
from loraloop.tracker.none import NoRun

if TYPE_CHECKING:
    from optuna import Study

    from loraloop.protocols import Run, Tracker
    from loraloop.records import Call
    from loraloop.sweep.runner import StudyRunner

UNFINISHED = ("RUNNING", "SCHEDULED")


@contextmanager
def tracked(summary: Call | None, session: StudyRunner) -> Iterator[Run]:
    """The sweep's own run, open while the context is; it keeps nothing where nothing is tracked.

    Args:
        summary: The stage at the sweep's end, whose tracker is the trials' too.
        session: Whose study keeps the run's id, so that a later sweep finds it.
    """
    if summary is None:
        yield NoRun()
        return
    tracker, study = summary.parts["tracker"], session.study
    _close_abandoned(tracker, study)
    with tracker.start(study.study_name, resume=study.user_attrs.get(PARENT)) as run:
        if run.id is not None:
            study.set_user_attr(PARENT, run.id)
        run.tags({"study": study.study_name, **{f"space.{key}": str(value) for key, value in session.space.items()}})
        yield run


def progress(run: Run, session: StudyRunner) -> None:
    """Log the best value so far."""
    best = session.best()
    if best and len(best[0].values) == 1:
        run.metrics({"best/value": best[0].values[0], "best/trial": float(best[0].number)}, step=session.done)


def _close_abandoned(tracker: Tracker, study: Study) -> None:
    """Mark the runs of trials whose process was killed as failed: their own process cannot do it."""
    for trial in study.get_trials(deepcopy=False):
        run = trial.user_attrs.get("run")
        if run is None or trial.state.name != "FAIL" or tracker.read(run)["status"] not in UNFINISHED:
            continue
        with suppress(ChildProcessError), tracker.start("", resume=run):
            raise ChildProcessError("its process ended before it did")
