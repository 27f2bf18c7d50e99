"""The experiment with tool calls: base, base with examples and adapter, side by side."""

from __future__ import annotations

import json

SMALL = (
    "+experiment=tool_calling", "model=tiny", "source.conversations=16", "source.tools=1", "source.tasks=[panel,vault]",
    "lora=r8", "lora.targets=[q_proj]", "trainer.max_steps=1", "trainer.max_length=1024",
    "evaluation.few_shot=1", "evaluation.max_new_tokens=4", "tracker.system_metrics=false",
)  # fmt: skip


def test_base_examples_and_adapter_are_three_columns(desk):
    """The summary, the run's metrics and its table of answers hold base, base with examples, and adapter by turn."""
    seen = desk(*SMALL)
    run = desk.run()
    assert len(seen.cells("tool_call_accuracy")) == len(seen.cells("vault/tool_call_accuracy")) == 3
    for prefix in ("base", "few_shot", "final"):
        assert run.data.metrics[f"{prefix}/tool_call_accuracy"] == 0  # of a base that knows no language
    folder = desk.artifacts(run) / "evaluation"
    table = json.loads((folder / "samples.json").read_text())
    assert {"answer", "base", "few_shot", "expected"} <= {*table["columns"]}
    lines = [json.loads(line) for line in (folder / "few_shot" / "generations.jsonl").read_text().splitlines()]
    conversations = {line["conversation"] for line in lines}
    assert (len(lines), len(conversations)) == (4, 2)
    assert sum(line["calls"] is not None for line in lines) == 2


def test_tool_metrics_are_refused_where_no_tool_is_called(desk):
    """Tool-call accuracy on rows without calls is refused before a step is trained."""
    seen = desk.attempt("source.runs=4", "gate.metric=tool_call_accuracy")
    assert seen.code == 2
    assert "no held-out row has a tool call: choose another metric" in seen.err


def test_rewarded_calls_are_an_experiment_too(desk):
    """What tool_calling_grpo weighs is rewarded: calls and likeness beside the source's rule, and no numbers."""
    drawn = ("trainer.batch_size=8", "trainer.accumulation=1", "trainer.max_new_tokens=8", "evaluation.few_shot=0")
    desk("+experiment=tool_calling_grpo", *SMALL[1:], *drawn)
    run = desk.run()
    weights = {name: float(run.data.params[f"trainer.rewards.{name}"]) for name in ("correct", "similar", "numbers")}
    assert weights == {"correct": 1.0, "similar": 0.5, "numbers": 0.0}
    assert 0 < run.data.metrics["train/reward"] < 2.5
