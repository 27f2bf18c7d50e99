"""Tasks of lm-eval before a training and after it."""

from __future__ import annotations

import json
import sys

import pytest

from loraloop.errors import ConfigError, DataError, MissingDependencyError
from loraloop.evaluation.evaluation import Evaluation
from loraloop.evaluation.general.lm_eval_tasks import Tasks, compare

TASK = """
task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
num_fewshot: 0
metric_list: [{metric: acc}]
"""


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """A folder with a task of eight questions."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    data = tmp_path / "letters.jsonl"
    asked = [{"question": f"{number}:", "choices": ["a", "b"], "answer": number % 2} for number in range(8)]
    data.write_text("".join(f"{json.dumps(each)}\n" for each in asked))
    (tmp_path / "letters.yaml").write_text(TASK % json.dumps(str(data)))
    return tmp_path


def test_a_task_is_measured_by_document_and_told_with_an_interval(letters, llama, tokenizer):
    """A task of one's own is answered without a hub; the model stays in its mode, and the change has its interval."""
    model, tasks = llama().train(), Tasks(("letters",), letters, 6)
    tasks.check()
    before = tasks.measure(model, tokenizer, chat=False)
    assert list(before) == ["letters/acc"]
    assert (len(before["letters/acc"]), model.training) == (6, True)
    after = {"letters/acc": [1.0] * 6}
    found = compare(before, after)["letters/acc"]
    assert (found.before, found.after) == (sum(before["letters/acc"]) / 6, 1.0)
    assert found.low <= found.change <= found.high
    with pytest.raises(ConfigError, match="names absent, which lm-eval does not have"):
        Tasks(("letters", "absent"), letters).check()
    (letters / "letters.jsonl").unlink()
    with pytest.raises(DataError, match="letters"):
        tasks.measure(model, tokenizer, chat=False)


def test_without_lm_eval_its_tasks_are_refused_before_anything_runs(monkeypatch):
    """The error says what to install; without tasks nothing is asked of it."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    Evaluation().check()
    with pytest.raises(MissingDependencyError, match=r"pip install 'loraloop\[lm-eval\]'"):
        Evaluation(lm_eval=("arc_easy",)).check()
