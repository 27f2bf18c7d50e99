"""The frozen instructions as rows, and what two scores on them say of forgetting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloop.core import paired
from loraloop.core.hashing import sha256
from loraloop.core.rendering import Renderer
from loraloop.errors import DataError
from loraloop.evaluation.general.rules import follows
from loraloop.records import Change, Example, General, Generation, Provenance, Row, Score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

FILE = Path(__file__).parent / "instructions.jsonl"
SOURCE = "general"
LEVEL = 0.95
RESAMPLES = 9_999
SEED = 0
"""Of the resamples, so that the same answers always have the same intervals."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction, a good answer, and the rules by which any answer is checked."""

    task: str
    instruction: str
    answer: str
    check: Mapping[str, Any]


@cache
def instructions() -> tuple[Instruction, ...]:
    """All of them, in the order of the file."""
    return tuple(Instruction(**json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines())


def rows(template: str, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """The instructions as a served model would be asked them.

    Args:
        template: The dataset's.
        tokenizer: Of the base.
    """
    renderer = Renderer(template, tokenizer)
    return [row for number, each in enumerate(instructions()) for row in renderer.rows(_example(number, each))]


def _example(number: int, asked: Instruction) -> Example:
    provenance = Provenance(source=SOURCE, index=number)
    return Example.one_turn(input=asked.instruction, output=asked.answer, task=asked.task, provenance=provenance)


def correct(example: Example, answer: str) -> bool:
    """Whether an answer keeps the rules of the instruction that a row of :func:`rows` was made from."""
    return follows(answer, instructions()[example.provenance.index or 0].check)


def compare(before: Score, after: Score) -> General:
    """How loss and kept rules changed, row by row on the same rows.

    Raises:
        DataError: The two were not measured on the same rows, or one of a row has no loss.
    """
    pairs = paired.same_rows(after, before)
    if pairs is None:
        raise DataError("base and adapter were not measured on the same general instructions")
    tasks = sorted({ours.task for ours, _ in pairs})
    kept = [(float(theirs.correct), float(ours.correct)) for ours, theirs in pairs]
    return General(
        instructions_sha256=sha256(FILE),
        rows=len(pairs),
        loss=_loss(pairs, before),
        rules=change(kept),
        rules_p=paired.p_value([one - other for one, other in kept]),
        slices={task: _loss([pair for pair in pairs if pair[0].task == task], before.slices[task]) for task in tasks},
    )


def _loss(pairs: Sequence[tuple[Generation, Generation]], before: Score) -> Change:
    """The change of the loss in nats a token; the rows have as many tokens before as after."""
    sums = [(theirs.nll, ours.nll) for ours, theirs in pairs if theirs.nll is not None and ours.nll is not None]
    if len(sums) < len(pairs):
        raise DataError("a general instruction has no loss of its reference answer, which is too long for the base")
    total = sum(one for one, _ in sums)
    scale = len(sums) * before["loss"] / total if total else 0.0  # rows over tokens
    return change([(scale * one, scale * other) for one, other in sums])


def change(pairs: Sequence[tuple[float, float]]) -> Change:
    """The two means, and the 95% bootstrap interval of the mean difference (Efron and Tibshirani 1993, chapter 13)."""
    values = np.asarray(pairs, dtype=float)
    differences = values[:, 1] - values[:, 0]
    drawn = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(differences[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    one, other = values.mean(axis=0)
    return Change(before=float(one), after=float(other), low=float(low), high=float(high))
