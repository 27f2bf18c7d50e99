"""What a trainer learns of its source."""

from __future__ import annotations

import json

import pytest

TRAINER = """
    import json

    from loraloop.trainer.sft import Sft


    class Judging(Sft):
        def train(self, job):
            examples = [row.example for row in job.data.train]
            answers = {"right": "{}", "spaced": "  {}", "longer": "{}!", "none": ""}
            rewards = {
                name: [job.reward(each, answer.format(each.output)) for each in examples]
                for name, answer in answers.items()
            }
            (job.output / "rewards.json").write_text(json.dumps(rewards))
            return super().train(job)
"""
SMALL = ("source.runs=2", "trainer.max_steps=1", "evaluation.max_rows=8", "tracker=none", "hydra.run.dir=job")


@pytest.fixture
def judging(desk, monkeypatch):
    """A trainer of one's own, in a module and a configuration file outside the package."""
    import textwrap

    (desk.folder / "judging.py").write_text(textwrap.dedent(TRAINER))
    monkeypatch.syspath_prepend(desk.folder)
    conf = desk.folder / "conf" / "trainer"
    conf.mkdir(parents=True)
    (conf / "judging.yaml").write_text("defaults: [sft, _self_]\n_target_: judging.Judging\n")
    return (f"hydra.searchpath=[file://{desk.folder}/conf]", "trainer=judging", "allow_targets=[judging.]")


def test_a_trainer_is_given_the_rule_of_its_source(desk, judging):
    """A trainer can ask for the reward of any answer to its rows, and gets what the source says of that answer."""
    desk(*judging, *SMALL)
    rewards = json.loads((desk.folder / "job" / "rewards.json").read_text())
    assert {name: set(values) for name, values in rewards.items()} == {
        "right": {True}, "spaced": {True}, "longer": {False}, "none": {False}
    }  # fmt: skip
    assert len(rewards["right"]) > 10


@pytest.mark.parametrize("chosen", ["objective=preference_accuracy", "gate.metric=preference_accuracy"])
def test_a_metric_that_the_rows_do_not_have_is_refused_before_training(desk, chosen):
    """Preference accuracy on rows without rejected answers is refused before a step is trained."""
    seen = desk.attempt(*SMALL, chosen)
    assert seen.code == 2
    assert "no held-out row has a rejected answer: choose another metric" in seen.err
    assert not (desk.folder / "job" / "adapter").exists()
