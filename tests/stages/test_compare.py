"""Stage ``compare``: two runs side by side."""

from __future__ import annotations

from loraloop.core.console import value_with_error

PAIR = "runs=[flips-tiny-r8,flips-tiny-r64]"


def test_two_ranks_differ_in_rank_alone_and_their_metrics_stand_side_by_side(compared):
    """stage=compare shows exactly the parameters that differ, and every metric of both runs as MLflow has it."""
    seen = compared("stage=compare", PAIR)
    changed = seen.out.split("metrics\n")[0].split("parameters that differ")[1].splitlines()
    assert [line.split() for line in changed[4:] if line.strip()] == [
        ["lora.alpha", "16.0", "128.0"],
        ["lora.r", "8", "64"],
    ]
    first, _, last = (run.data.metrics for run in compared.runs())
    (row,) = [line.split() for line in seen.out.splitlines() if line.split()[:2] == ["all", "loss"]]
    shown = [value_with_error(each["final/loss"], each["final/loss_se"]).split() for each in (first, last)]
    assert row[2:9] == [*shown[0], *shown[1], f"{last['final/loss'] - first['final/loss']:+.3f}"]


def test_every_task_is_a_slice(compared):
    """Each task of the data has rows of its own in the comparison."""
    seen = compared("stage=compare", PAIR)
    slices = {line.split()[0] for line in seen.out.splitlines() if line.split()[1:2] == ["task_accuracy"]}
    assert slices == {"all", "count", "parity"}


def test_answers_to_the_same_prompts_stand_side_by_side(compared):
    """The prompts that both answered are counted, and some are shown with the truth and both answers."""
    seen = compared("stage=compare", PAIR)
    assert "answers: 16 prompts in common, " in seen.out
    assert "heads" in seen.out.split("side by side")[1]


def test_runs_are_found_by_id_too(compared):
    """Run ids and run names give the same comparison."""
    ids = [run.info.run_id for run in compared.runs()]
    assert compared("stage=compare", f"runs=[{ids[0]},{ids[2]}]").out == compared("stage=compare", PAIR).out


def test_other_than_two_runs_are_refused(compared):
    """One run, or a name that is no run, is refused with what to write and what there is."""
    one = compared.attempt("stage=compare", "runs=[flips-tiny-r8]")
    unknown = compared.attempt("stage=compare", "runs=[flips-tiny-r8,flips-tiny-r9]")
    assert (one.code, unknown.code) == (2, 1)
    assert "runs=[A,B]" in one.err
    assert "flips-tiny-r64" in unknown.err
