"""What has to fit between the parts of an experiment."""

from __future__ import annotations

import pytest

from loraloop.evaluation.evaluation import Evaluation
from loraloop.gate.gate import Gate
from loraloop.workflows.experiment import Experiment


@pytest.mark.parametrize(
    ("must_beat", "few_shot", "fits"), [("few_shot", 0, False), ("few_shot", 3, True), ("base", 0, True)]
)
def test_a_gate_against_examples_needs_them_measured(must_beat, few_shot, fits):
    """gate.must_beat=[few_shot] without evaluation.few_shot is one problem that says what to set."""
    found = Experiment.misfits({"gate": Gate(must_beat=(must_beat,)), "evaluation": Evaluation(few_shot=few_shot)})
    assert (found == []) is fits
    assert all("set evaluation.few_shot=3, or leave few_shot out" in each for each in found)


def test_a_gate_against_examples_is_refused_before_anything_runs(desk):
    """The command with such a gate ends with status 2 and leaves no run."""
    seen = desk.attempt("gate.must_beat=[base,few_shot]")
    assert seen.code == 2
    assert "gate.must_beat names few_shot, and evaluation.few_shot=0 does not measure it" in seen.err
