"""Stages: a stage is a function, its parameter names are config groups or keys of its ``conf/stage/*.yaml``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError
from loraloop.stages.ab import ab
from loraloop.stages.collect import collect
from loraloop.stages.compare import compare
from loraloop.stages.demo_loop import demo_loop
from loraloop.stages.evaluate import evaluate
from loraloop.stages.experiment import experiment
from loraloop.stages.feedback import feedback
from loraloop.stages.ledger import ledger
from loraloop.stages.ocr_bench import ocr_bench
from loraloop.stages.pretrain import pretrain
from loraloop.stages.preview import preview
from loraloop.stages.read import read
from loraloop.stages.review import review
from loraloop.stages.serve import keys, serve
from loraloop.stages.simulate import simulate
from loraloop.stages.sweep_report import sweep_report
from loraloop.stages.tick import rollback, rollout, tick
from loraloop.stages.versions import promote, publish, register

Stage = Callable[..., Any]
STAGES: dict[str, Stage] = {
    stage.__name__: stage
    for stage in (
        experiment,
        collect,
        read,
        preview,
        evaluate,
        compare,
        register,
        promote,
        publish,
        ledger,
        demo_loop,
        serve,
        keys,
        feedback,
        review,
        ab,
        simulate,
        tick,
        rollout,
        rollback,
        pretrain,
        sweep_report,
        ocr_bench,
    )
}


def find(name: str) -> Stage:
    """The stage of that name.

    Raises:
        ConfigError: There is none; the message lists those that exist.
    """
    if name not in STAGES:
        raise ConfigError(f"stage={name}: no such stage{nearest(name, STAGES)}; there are {', '.join(STAGES)}")
    return STAGES[name]
