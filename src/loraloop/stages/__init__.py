"""Stages: functions whose parameters are config groups or keys of their file in ``conf/stage/``.

A stage may also be a frozen class whose fields are these; then its ``run()`` does the work. Its ``CHECKED``, if any,
names the parts whose ``check()`` must pass; by default all must. Its ``misfits(parts)``, if any, tells what does not
fit between parts that are sound alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError
from loraloop.stages.ab import ab
from loraloop.stages.collect import Collect
from loraloop.stages.combine import combine
from loraloop.stages.compare import compare
from loraloop.stages.compress import compress
from loraloop.stages.demo_loop import DemoLoop
from loraloop.stages.evaluate import evaluate
from loraloop.stages.feedback import feedback
from loraloop.stages.forget import Forget
from loraloop.stages.import_traces import import_traces
from loraloop.stages.judge import judge
from loraloop.stages.judge_report import judge_report
from loraloop.stages.judge_run import judge_run
from loraloop.stages.keys import keys
from loraloop.stages.ledger import ledger
from loraloop.stages.multirun_report import multirun_report
from loraloop.stages.ocr_bench import ocr_bench
from loraloop.stages.pretrain import pretrain
from loraloop.stages.preview import preview
from loraloop.stages.read import read
from loraloop.stages.register import register
from loraloop.stages.review import review
from loraloop.stages.rollback import Rollback
from loraloop.stages.rollout import rollout
from loraloop.stages.serve import serve
from loraloop.stages.simulate import simulate
from loraloop.stages.sweep_report import sweep_report
from loraloop.stages.tick import Tick
from loraloop.stages.traces import traces
from loraloop.stages.verify import verify
from loraloop.stages.versions import promote, publish
from loraloop.stages.watch import watch
from loraloop.workflows.experiment import Experiment

Stage = Callable[..., Any]
"""A function, or a class whose ``run()`` is called; its parameters are ``job``, config groups and keys."""
STAGES: dict[str, Stage] = {
    "experiment": Experiment,
    "collect": Collect,
    "read": read,
    "preview": preview,
    "evaluate": evaluate,
    "compare": compare,
    "register": register,
    "promote": promote,
    "publish": publish,
    "verify": verify,
    "compress": compress,
    "combine": combine,
    "ledger": ledger,
    "demo_loop": DemoLoop,
    "serve": serve,
    "keys": keys,
    "feedback": feedback,
    "review": review,
    "forget": Forget,
    "judge": judge,
    "judge_report": judge_report,
    "judge_run": judge_run,
    "import": import_traces,
    "traces": traces,
    "ab": ab,
    "simulate": simulate,
    "tick": Tick,
    "rollout": rollout,
    "rollback": Rollback,
    "pretrain": pretrain,
    "sweep_report": sweep_report,
    "watch": watch,
    "multirun_report": multirun_report,
    "ocr_bench": ocr_bench,
}


def find(name: str) -> Stage:
    """The stage of that name.

    Raises:
        ConfigError: There is none; the message lists those that exist.
    """
    if name not in STAGES:
        raise ConfigError(f"stage={name}: no such stage{nearest(name, STAGES)}; there are {', '.join(STAGES)}")
    return STAGES[name]
