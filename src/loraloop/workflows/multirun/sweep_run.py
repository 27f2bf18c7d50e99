"""A sweep as one tracked run: its trials are nested below it, and a later sweep of the same study goes on with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loraloop.errors import TrackingError
from loraloop.sweep.trial import PARENT
from loraloop.tracker.none import NoRun

if TYPE_CHECKING:
    from loraloop.protocols import Run, Tracker
    from loraloop.records import Call
    from loraloop.sweep.runner import StudyRunner

log = logging.getLogger(__name__)


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
    with tracker.start(study.study_name, resume=readable(tracker, study.user_attrs.get(PARENT))) as run:
        if run.id is not None:
            study.set_user_attr(PARENT, run.id)
        run.tags({"study": study.study_name, **{f"space.{key}": str(value) for key, value in session.space.items()}})
        yield run


def progress(run: Run, session: StudyRunner) -> None:
    """Log the best value so far."""
    best = session.best()
    if best and len(best[0].values) == 1:
        run.metrics({"best/value": best[0].values[0], "best/trial": float(best[0].number)}, step=session.done)


def readable(tracker: Tracker, run: str | None) -> str | None:
    """A run that a study names; ``None`` if it names none, or the tracker has it no longer or never had it."""
    try:
        return run and str(tracker.read(run)["id"])
    except TrackingError as error:
        log.warning("The study goes on without the run that it names: %s", error)
        return None
