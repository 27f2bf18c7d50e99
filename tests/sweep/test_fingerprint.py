"""What trials of one study have in common."""

from loraloop.sweep import fingerprint


def test_only_what_results_depend_on_is_compared():
    """A changed value is told; how often a trial is validated or logged is not."""
    then = {"trainer.eval_steps": None, "trainer.log_steps": 10, "trainer.warmup": 0.1}
    now = {"trainer.eval_steps": 0.125, "trainer.warmup": 0.2, "seed": 1}
    assert fingerprint.differences(then, now) == ["trainer.warmup: 0.1 -> 0.2", "seed: (absent) -> 1"]
