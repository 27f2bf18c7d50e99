"""Machines whose clocks differ."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from loraloop.sweep import watching
from loraloop.sweep.opening import open_study
from loraloop.sweep.space import Numbers


@pytest.mark.parametrize("hours", [-5, 5])
def test_how_long_a_trial_runs_is_told_by_the_clock_of_its_sweep(bench, postgres, monkeypatch, hours):
    """Whoever watches with another clock, or in another time zone, sees the seconds since the trial began.

    There is a dash where a time is below 0.
    """

    class Theirs(datetime):
        """The clock of the machine on which the sweep is."""

        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=hours)

    settings = bench.settings(storage=postgres, study_name=f"clock {hours}")
    monkeypatch.setattr("optuna.storages._rdb.storage.datetime", Theirs)
    monkeypatch.setattr("loraloop.sweep.clock.datetime", Theirs)
    with open_study(settings, "unnamed", {"x": Numbers(0.0, 1.0)}, {}) as session:
        session.ask(1)
        monkeypatch.undo()
        watched = watching.look(session.study)
    (trial,) = watched.trials
    assert abs(datetime.now() - trial.datetime_start) > timedelta(hours=4)
    assert timedelta() <= watched.now - trial.datetime_start < timedelta(hours=1)
    took = watching.cells(trial, lower=True, now=trial.datetime_start - timedelta(hours=1))[5]
    assert took == "-"
