"""The stars that a session implies, and how texts are cleaned."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings, strategies

from loraloop.feedback.ratings import clean, implied
from loraloop.records import Session

SECONDS = strategies.floats(0, 1e6, allow_nan=False)
JUST_BELOW_10, JUST_ABOVE_30 = math.nextafter(10, 0), math.nextafter(30, 31)


def stars_of(status, seconds, retries):
    return implied(Session(id="s", prompt="p", status=status, duration=seconds, retries=retries))


@pytest.mark.parametrize(
    ("seconds", "stars"),
    [(0.0, 5), (JUST_BELOW_10, 5), (10.0, 4), (30.0, 4), (JUST_ABOVE_30, 3), (1e6, 3)],
)
def test_the_edges_of_the_table(seconds, stars):
    """Under 10 s is 5, 10 to 30 s is 4 with both ends, above is 3."""
    assert stars_of("ok", seconds, 0) == stars


@settings(deadline=None)
@given(seconds=SECONDS, retries=strategies.integers(1, 100))
def test_retries(seconds, retries):
    """A success after a retry is 3, however quick."""
    assert stars_of("ok", seconds, retries) == 3


@settings(deadline=None)
@given(seconds=SECONDS, retries=strategies.integers(0, 100), status=strategies.sampled_from(["error", "timeout"]))
def test_failures(seconds, retries, status):
    """A failure is 1, however quick."""
    assert stars_of(status, seconds, retries) == 1


@settings(deadline=None)
@given(first=SECONDS, second=SECONDS)
def test_slower_is_never_better(first, second):
    """Of two successes the slower one never has more stars."""
    quick, slow = sorted([first, second])
    assert stars_of("ok", quick, 0) >= stars_of("ok", slow, 0)


@settings(deadline=None)
@given(strategies.text(alphabet=strategies.characters(codec=None)))
def test_clean_texts(text):
    """A cleaned text is Unicode without NUL, and cleaning it again changes nothing."""
    cleaned = clean(text)
    cleaned.encode("utf8")
    assert "\0" not in cleaned
    assert clean(cleaned) == cleaned
