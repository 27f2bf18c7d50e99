"""Tasks of lm-eval (https://github.com/EleutherAI/lm-evaluation-harness), before a training and after it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloop.core.extras import require
from loraloop.errors import ConfigError, DataError
from loraloop.evaluation.general.instructions import change
from loraloop.records import Change

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

EXTRA = "lm-eval"
BATCH = 8
"""Requests of a forward pass."""
Measured = Mapping[str, Sequence[float]]
"""``TASK/METRIC`` -> its value for each document, in their order."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks of lm-eval.

    Attributes:
        names: Of its tasks and groups, or of those in ``folder``.
        folder: Holds tasks of your own, as lm-eval's ``--include_path``; Python that their YAML names is executed.
        limit: Documents of each task, the first ones; ``None`` takes all.
    """

    names: Sequence[str]
    folder: Path | None = None
    limit: int | None = None

    def check(self) -> None:
        """Refuse tasks that are not there, before anything is trained.

        Raises:
            MissingDependencyError: lm-eval is not installed.
            ConfigError: There is no such task.
        """
        require("lm_eval", EXTRA)
        known = _manager(self.folder)
        if unknown := [name for name in self.names if not known.match_tasks([name])]:
            raise ConfigError(
                f"evaluation.lm_eval names {', '.join(unknown)}, which lm-eval does not have: `lm-eval ls tasks` lists "
                "its tasks; the folder of your own is evaluation.lm_eval_path"
            )

    def measure(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> Measured:
        """Every metric of the tasks that is one number a document.

        Args:
            model: A base or an adapter on it.
            tokenizer: Its tokenizer.
            chat: Whether questions are asked in the tokenizer's chat template.

        Raises:
            DataError: A task's data cannot be read, or its documents have no metric that is a number.
        """
        lm_eval = require("lm_eval", EXTRA)
        huggingface = require("lm_eval.models.huggingface", EXTRA)
        with _quiet(model):
            try:
                found = lm_eval.simple_evaluate(
                    huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH),
                    tasks=list(self.names),
                    limit=self.limit,
                    bootstrap_iters=0,
                    apply_chat_template=chat,
                    task_manager=_manager(self.folder),
                )
            except (OSError, ValueError, KeyError) as error:  # as datasets and lm-eval say that data is not there
                raise DataError(f"evaluation.lm_eval={list(self.names)}: {error}") from error
        return _values(found["samples"], self.names)


@lru_cache(maxsize=1)
def _manager(folder: Path | None) -> Any:
    """What knows lm-eval's tasks and those in ``folder``: it takes seconds to read them all."""
    tasks = require("lm_eval.tasks", EXTRA)
    return tasks.TaskManager(include_path=str(folder) if folder else None)


def compare(before: Measured, after: Measured) -> dict[str, Change]:
    """Each metric's mean before and after, with the 95% interval of the paired change over its documents."""
    return {name: change(list(zip(before[name], after[name], strict=True))) for name in before}


def _values(samples: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str]) -> dict[str, list[float]]:
    made: dict[str, list[float]] = {}
    for task, each in samples.items():
        for sample in sorted(each, key=lambda sample: sample["doc_id"]):
            for metric in sample["metrics"]:
                kept = f"{task}/{metric}" if sample["filter"] == "none" else f"{task}/{metric},{sample['filter']}"
                if isinstance(sample[metric], int | float | np.number):  # others are put together over all documents
                    made.setdefault(kept, []).append(float(sample[metric]))
    if not made:
        raise DataError(
            f"evaluation.lm_eval={list(names)} has no metric that is one number a document, so no change has an "
            "interval: choose tasks of choices or of exact answers"
        )
    return made


@contextmanager
def _quiet(model: torch.nn.Module) -> Iterator[None]:
    """lm-eval without its advice, and the model's mode as it was."""
    was, logger = model.training, logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        model.train(was)
