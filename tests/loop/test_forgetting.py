"""How much of what the champion knew a candidate has forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.errors import DataError
from loraloop.loop.forgetting import forgetting
from loraloop.records import Generation, Score

ANSWERS = st.lists(st.tuples(st.sampled_from(["count", "parity"]), st.booleans(), st.booleans()), min_size=1)


def score(answers: list[tuple[str, bool]]) -> Score:
    """A score of which each answer was right or not."""
    made = tuple(Generation(task, f"q{place}", "a", "a", right) for place, (task, right) in enumerate(answers))
    slices = {
        task: Score(rows=count, values={"task_accuracy": sum(right for name, right in answers if name == task) / count})
        for task in {name for name, _ in answers}
        if (count := sum(name == task for name, _ in answers))
    }
    return Score(rows=len(answers), values={}, slices=slices, generations=made)


@given(ANSWERS)
def test_it_is_the_share_that_only_the_champion_knows(answers):
    """The share counts the rows that the champion has right and the candidate wrong, whatever else was gained."""
    candidate, champion = score([(task, ours) for task, ours, _ in answers]), score([(t, old) for t, _, old in answers])
    found = forgetting(candidate, champion)
    assert found.share == sum(old and not ours for _, ours, old in answers) / len(answers)
    assert found.worst >= found.share
    assert forgetting(champion, champion).worst == 0


def test_a_slice_that_is_lost_counts_as_much_as_it_fell():
    """A small slice that is lost is not hidden by a large one that is kept."""
    champion = score([("count", True)] * 98 + [("parity", True)] * 2)
    found = forgetting(score([("count", True)] * 98 + [("parity", False)] * 2), champion)
    assert (found.share, found.drops["parity"], found.worst) == (0.02, 1.0, 1.0)
    assert found.reason(0.1) == (
        "forgets 0.020 of the golden rows; the largest drop of a slice is 1.000 (parity): "
        "more than policy.max_forgetting=0.1"
    )
    assert found.reason(1.0).endswith("no more than policy.max_forgetting=1")


def test_other_rows_are_not_compared():
    """Scores of other questions are refused: a difference between them would say nothing."""
    with pytest.raises(DataError, match="not measured on the same golden rows"):
        forgetting(score([("count", True)]), score([("count", True), ("count", True)]))
