"""Stages: functions whose parameters are config groups or keys of their file in ``conf/stage/``.

A stage may also be a frozen class whose fields are these; then its ``run()`` does the work. Its ``CHECKED``, if any,
names the parts whose ``check()`` must pass; by default all must. Its ``misfits(parts)``, if any, tells what does not
fit between parts that are sound alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError

Stage = Callable[..., Any]
"""A function, or a class whose ``run()`` is called; its parameters are ``job``, config groups and keys."""
STAGES: dict[str, Stage | str] = {
    "experiment": "loraloop.workflows.experiment.Experiment",
    "collect": "loraloop.stages.collect.Collect",
    "read": "loraloop.stages.read.read",
    "preview": "loraloop.stages.preview.preview",
    "evaluate": "loraloop.stages.evaluate.evaluate",
    "compare": "loraloop.stages.compare.compare",
    "register": "loraloop.stages.register.register",
    "promote": "loraloop.stages.versions.promote",
    "publish": "loraloop.stages.versions.publish",
    "verify": "loraloop.stages.verify.verify",
    "compress": "loraloop.stages.compress.compress",
    "combine": "loraloop.stages.combine.combine",
    "ledger": "loraloop.stages.ledger.ledger",
    "demo_loop": "loraloop.stages.demo_loop.DemoLoop",
    "serve": "loraloop.stages.serve.serve",
    "keys": "loraloop.stages.keys.keys",
    "feedback": "loraloop.stages.feedback.feedback",
    "review": "loraloop.stages.review.review",
    "forget": "loraloop.stages.forget.Forget",
    "judge": "loraloop.stages.judge.judge",
    "judge_report": "loraloop.stages.judge_report.judge_report",
    "judge_run": "loraloop.stages.judge_run.judge_run",
    "import": "loraloop.stages.import_traces.import_traces",
    "traces": "loraloop.stages.traces.traces",
    "ab": "loraloop.stages.ab.ab",
    "simulate": "loraloop.stages.simulate.simulate",
    "tick": "loraloop.stages.tick.Tick",
    "rollout": "loraloop.stages.rollout.rollout",
    "rollback": "loraloop.stages.rollback.Rollback",
    "pretrain": "loraloop.stages.pretrain.pretrain",
    "sweep_report": "loraloop.stages.sweep_report.sweep_report",
    "watch": "loraloop.stages.watch.watch",
    "multirun_report": "loraloop.stages.multirun_report.multirun_report",
    "ocr_bench": "loraloop.stages.ocr_bench.ocr_bench",
}
"""By name, the stage or where it is: to import all of them for one would take half a second."""


def find(name: str) -> Stage:
    """The stage of that name.

    Raises:
        ConfigError: There is none; the message lists those that exist.
    """
    if name not in STAGES:
        raise ConfigError(f"stage={name}: no such stage{nearest(name, STAGES)}; there are {', '.join(STAGES)}")
    stage = STAGES[name]
    if not isinstance(stage, str):
        return stage
    module, _, attribute = stage.rpartition(".")
    found: Stage = getattr(importlib.import_module(module), attribute)
    return found
