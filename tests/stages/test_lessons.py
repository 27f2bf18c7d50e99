"""What a retraining is made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.policy import Mix
from loraloop.records import Example, Provenance
from loraloop.source.flips import Flips
from loraloop.source.sessions import Sessions
from loraloop.stages.lessons import Marked, mixed


def examples(count: int, source: str) -> list[Example]:
    """Different examples of one source."""
    provenance = Provenance(source=source)
    return [Example(input=f"{source} {number}", output=str(number), provenance=provenance) for number in range(count)]


@given(
    corrective=st.integers(1, 60), earlier=st.integers(2, 200), share=st.floats(0.05, 1), rows=st.integers(20, 300)
)  # fmt: skip
def test_the_shares_hold_whatever_there_is(corrective, earlier, share, rows):
    """The set has the mix's shares to within a row, earlier examples come once, and it is never larger than asked."""
    mix = Mix(corrective=share, earlier=1 - share, rows=rows)
    new, old = mixed(examples(corrective, "sessions"), examples(earlier, "flips"), mix, 0)
    total = len(new) + len(old)
    assert new
    assert total <= rows
    assert abs(len(new) - share * total) <= 1
    assert len({each.input for each in old}) == len(old)
    assert len({each.input for each in new}) == min(corrective, len(new))


def test_the_draw_is_the_seeds_alone():
    """The same seed draws the same examples, in whatever order they came; another seed draws others."""
    new, old, mix = examples(9, "sessions"), examples(100, "flips"), Mix(rows=20)
    assert mixed(new, old, mix, 3) == mixed(new[::-1], old[::-1], mix, 3)
    assert mixed(new, old, mix, 3) != mixed(new, old, mix, 4)


def test_an_answer_is_marked_by_the_rule_of_its_source():
    """A corrected session is marked by its text, an earlier example by the rule of the source that made it."""
    flips = Flips(runs=1, per_run=1, tasks=("count",))
    (example,) = flips.collect(None).examples
    marked = Marked(flips)
    assert marked.correct(example, example.output) == flips.correct(example, example.output)
    (session,) = examples(1, "sessions")
    assert marked.correct(session, " 0 ") is Sessions().correct(session, " 0 ") is True
    assert marked.collect(None).examples == ()


def test_without_earlier_examples_the_set_is_all_corrective():
    """A mix of corrective examples alone asks nothing of the source."""
    new, old = mixed(examples(4, "sessions"), [], Mix(corrective=1, earlier=0, rows=10), 0)
    assert (len(new), old) == (10, [])
    with pytest.raises(ValueError, match="shares add up to 1"):
        Mix(corrective=1, earlier=0.1)
