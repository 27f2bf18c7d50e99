"""What the demonstration trains on."""

from __future__ import annotations

import pytest

from loraloop.source.flips import Flips
from loraloop.workflows.demo.training import Mistaught


@pytest.mark.parametrize("tasks", [("count",), ("count", "parity")])
def test_a_mistaught_source_gives_the_answers_of_others(tasks):
    """Its questions are those of the source, and its answers belong to the question before."""
    source = Flips(runs=1, tasks=tasks)
    right, wrong = source.collect(None).examples, Mistaught(source).collect(None).examples
    assert [each.input for each in wrong] == [each.input for each in right]
    assert [each.output for each in wrong] == [right[at - 1].output for at in range(len(right))]
