"""A cycle's training, by one process at a time."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loraloop.evaluation import store
from loraloop.gate.gate import Gate
from loraloop.loop.lock import turn
from loraloop.records import Base, Generation, Manifest, Score
from loraloop.registry import manifest as manifests
from loraloop.workflows.retraining.training import RESULT, Retraining
from waiting import PATIENCE


def test_a_training_that_another_process_does_is_not_done_again(tmp_path: Path) -> None:
    """Who comes to a cycle's folder while another trains there touches nothing, and then finds what that one did."""
    unused: Any = None
    retraining = Retraining(parts=unused, max_forgetting=0.1)
    waits, failures = threading.Event(), []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waits.set()

    def train() -> None:
        try:
            retraining.train(unused, tmp_path, unused, unused, unused)
        except BaseException as error:
            failures.append(error)
            waits.set()

    logger, handler = logging.getLogger("loraloop.loop.lock"), Handler()
    logger.addHandler(handler)
    second = threading.Thread(target=train, daemon=True)
    with turn(tmp_path):
        second.start()
        assert waits.wait(PATIENCE)
        (tmp_path / RESULT).write_text('{"run": "1"}')
    second.join(PATIENCE)
    logger.removeHandler(handler)
    assert failures == []
    assert retraining.result(tmp_path) == {"run": "1"}


def test_a_cycle_is_judged_against_examples_too(tmp_path: Path) -> None:
    """The score of the base with examples that a cycle's training kept is put before the gate."""

    def score(right: int) -> Score:
        rows = tuple(Generation("t", str(place), "", "", place < right) for place in range(100))
        return Score(rows=100, values={"task_accuracy": right / 100}, generations=rows)

    for name, right in (("adapter", 60), ("base", 0), ("champion", 10), ("few_shot", 70)):
        store.write(score(right), tmp_path / "training" / "evaluation" / name)
    base = Base(
        name="b", revision=None, sha256="1" * 64, tokenizer_sha256="2" * 64, chat_template_sha256=None,
        quantization="none", dtype="float32",
    )  # fmt: skip
    manifest = Manifest(
        base=base, rank=1, alpha=1, targets=("q_proj",), dataset_fingerprint=None, template="t", run_id=None,
        parent_run_id=None, weights_sha256="3" * 64, loraloop_version="0",
    )  # fmt: skip
    manifests.write(tmp_path / "training" / "adapter", manifest)
    registry = SimpleNamespace(require_servable=lambda *_: None)
    parts: Any = SimpleNamespace(registry=registry, gate=Gate(must_beat=("base", "few_shot")))
    verdict = Retraining(parts=parts, max_forgetting=1.0).decide(tmp_path)
    assert not verdict.passed
    assert "does not beat few_shot 0.7" in verdict.reason
