"""Rows are cut to the model's positions and put into batches."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.evaluation.encode import fit, grouped, shorten


def test_shortening_keeps_the_start_token_and_the_end_of_the_prompt():
    """What goes is the beginning after the start token."""
    assert shorten([9, 1, 2, 3, 4], 3, 9) == [9, 3, 4]
    assert shorten([1, 2, 3, 4], 3, 9) == [2, 3, 4]
    assert shorten([1, 2], 3, 9) == [1, 2]
    assert shorten([9, 1, 2], 1, 9) == [2]


@given(st.integers(0, 30), st.integers(1, 9), st.integers(10, 40))
@settings(max_examples=50, deadline=None)
def test_fitted_rows_keep_their_completion(prompt, completion, positions):
    """However long the prompt, the row fits and its completion is whole."""
    row = list(range(100, 100 + prompt)) + list(range(completion))
    ((ids, length),) = fit([(row, prompt)], positions, 100)
    assert len(ids) <= positions
    assert ids[length:] == list(range(completion))


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_batches_hold_every_row_once_within_the_budget(widths, budget):
    """Batches partition the rows and pad to at most the budget, unless one row alone exceeds it."""
    batches = list(grouped(len(widths), lambda i: widths[i], lambda i: (-widths[i],), budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(widths)))
    assert all(len(batch) == 1 or len(batch) * max(widths[i] for i in batch) <= budget for batch in batches)
