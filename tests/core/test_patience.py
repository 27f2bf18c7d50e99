"""Waiting for a service that is away for a moment."""

from __future__ import annotations

import threading

import pytest

from loraloop.core import patience
from loraloop.errors import ConfigError, TrackingError


@pytest.fixture
def answers(monkeypatch):
    """A call that raises what is left of a list, and then returns."""
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.0)

    def made(*errors):
        left = list(errors)

        def call():
            if left:
                raise left.pop(0)
            return "there"

        return call

    return made


def test_a_service_that_comes_back_is_waited_for(answers, caplog):
    """An absence is told once, and what the call returns in the end is returned."""
    assert patience.patiently(answers(TrackingError("away"), TrackingError("still")), TrackingError) == "there"
    assert [record.getMessage() for record in caplog.records] == ["This is tried again for 5 min 00 s at most: away"]


def test_another_error_and_a_long_absence_are_raised(answers, monkeypatch):
    """An error of another kind is raised at once, and an absence after its longest time."""
    with pytest.raises(ConfigError):
        patience.patiently(answers(ConfigError("wrong")), TrackingError)
    monkeypatch.setattr(patience, "AWAY_SECONDS", -1.0)
    with pytest.raises(TrackingError, match="away"):
        patience.patiently(answers(TrackingError("away")), TrackingError)


def test_an_answer_is_waited_for_so_long_and_no_longer(answers):
    """What comes in time is returned or raised as it was; what does not is a ``TimeoutError``."""
    never = threading.Event()
    assert patience.within(60, answers()) == "there"
    with pytest.raises(ConnectionError, match="refused"):
        patience.within(60, answers(ConnectionError("refused")))
    with pytest.raises(TimeoutError):
        patience.within(0.01, never.wait)
    never.set()
