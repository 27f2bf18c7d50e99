"""The stars that a session's course implies, and how texts are cleaned."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings, strategies

from loraloop.feedback.form import Issue
from loraloop.feedback.ratings import ISSUES, clean, implied

SECONDS = strategies.floats(0, 1e6, allow_nan=False)
JUST_BELOW_10, JUST_ABOVE_30 = math.nextafter(10, 0), math.nextafter(30, 31)


@pytest.mark.parametrize(
    ("seconds", "stars"),
    [(0.0, 5), (JUST_BELOW_10, 5), (10.0, 4), (30.0, 4), (JUST_ABOVE_30, 3), (1e6, 3)],
)
def test_the_edges_of_the_table(seconds, stars):
    """Under 10 s is 5, 10 to 30 s is 4 with both ends, above is 3."""
    assert implied("ok", seconds, retries=0) == stars


@settings(deadline=None)
@given(seconds=SECONDS, retries=strategies.integers(1, 100))
def test_retries(seconds, retries):
    """A success after a retry is 3, however quick."""
    assert implied("ok", seconds, retries) == 3


@settings(deadline=None)
@given(seconds=SECONDS, retries=strategies.integers(0, 100), status=strategies.sampled_from(["error", "timeout"]))
def test_failures(seconds, retries, status):
    """A failure is 1, however quick."""
    assert implied(status, seconds, retries) == 1


@settings(deadline=None)
@given(first=SECONDS, second=SECONDS)
def test_slower_is_never_better(first, second):
    """Of two successes the slower one never has more stars."""
    quick, slow = sorted([first, second])
    assert implied("ok", quick, 0) >= implied("ok", slow, 0)


@settings(deadline=None)
@given(strategies.text(alphabet=strategies.characters(codec=None)))
def test_clean_texts(text):
    """A cleaned text is Unicode without NUL, and cleaning it again changes nothing."""
    cleaned = clean(text)
    cleaned.encode("utf8")
    assert "\0" not in cleaned
    assert clean(cleaned) == cleaned


def test_the_form_takes_every_issue():
    """The words that the API accepts are exactly those that are known."""
    assert set(Issue.__args__) == set(ISSUES)
