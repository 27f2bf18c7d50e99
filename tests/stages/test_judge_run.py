"""Stage ``judge_run`` on a run in MLflow and a scripted judge that is served over HTTP."""

from __future__ import annotations

import pytest

from loraloop.errors import JudgeError, LoraloopError
from loraloop.evaluation import store
from loraloop.judge.openai import OpenAIJudge
from loraloop.records import Generation, Score
from loraloop.stages.judge_run import judge_run
from loraloop.tracker.mlflow import Mlflow
from scripted_judge import ScriptedJudge, serving, verdict

ANSWERS = [("4", "a"), ("5", "a"), ("?", ""), ("odd", "")]


@pytest.fixture
def tracked(tmp_path):
    """A finished run with four held-out answers, two of one conversation, and its id."""
    tracker = Mlflow(folder=str(tmp_path / "mlruns"), system_metrics=False)
    made = [
        Generation(task="sum", prompt="2 + 2?", expected="4", answer=text, correct=text == "4", conversation=name)
        for text, name in ANSWERS
    ]
    store.write(Score(rows=4, values={"task_accuracy": 0.25}, generations=tuple(made)), tmp_path / "out" / "adapter")
    with tracker.start("sums") as run:
        run.metrics({"final/task_accuracy": 0.25})
        run.artifact(tmp_path / "out", "evaluation")
    return tracker, tracker.read("sums")["id"]


def says(body):
    """5 to the 4, nonsense to what is odd, 2 to the others."""
    text = body["messages"][-1]["content"]
    return "well" if "\nodd\n" in text else verdict(5 if "\n4\n" in text else 2)


def test_held_out_answers_get_a_score_of_their_own(tracked):
    """The run gets the mean, its error and a table; what was no verdict is counted apart; the rule's scores stay."""
    tracker, run = tracked
    with serving(ScriptedJudge(says)) as scripted:
        judge_run(None, run, 1000, OpenAIJudge(url=scripted.url, model="m", rubric="r", retries=0), tracker)
        assert all("expected" not in scripted.text(at) for at in range(len(scripted.asked)))
    found = tracker.read(run)
    assert (found["status"], found["metrics"]["final/task_accuracy"]) == ("FINISHED", 0.25)
    assert found["metrics"]["judge_score"] == 3
    assert found["metrics"]["judge_score/rows"] == 3
    assert found["metrics"]["judge_score/failed"] == 1
    assert found["metrics"]["judge_score_se"] == pytest.approx((2 * (1 + 1)) ** 0.5 / 3)
    table = (tracker.artifacts(run) / "evaluation" / "judged.json").read_text()
    assert '"judge_score"' in table
    assert "nonsense" in table


@pytest.mark.parametrize(
    ("reply", "changes", "words"), [(503, {}, "no answer to 3"), (None, {"max_calls": 2}, "max_calls")]
)
def test_a_judge_that_does_not_see_all_leaves_no_score(tracked, reply, changes, words):
    """Where the judge is down or its budget is spent the run stays as it was, and the error says how to go on."""
    tracker, run = tracked
    with serving(ScriptedJudge(lambda body: reply or says(body))) as scripted:
        judge = OpenAIJudge(url=scripted.url, model="m", rubric="r", retries=0, **changes)
        with pytest.raises(JudgeError, match=words):
            judge_run(None, run, 1000, judge, tracker)
    assert set(tracker.read(run)["metrics"]) == {"final/task_accuracy"}


def test_a_run_without_answers_is_refused(tracked):
    """A run that measured no adapter is an error before the judge is asked."""
    tracker, _ = tracked
    with tracker.start("empty"):
        pass
    with pytest.raises(LoraloopError, match="kept no artifacts"):
        judge_run(None, "empty", 1, OpenAIJudge(model="m", rubric="r"), tracker)
