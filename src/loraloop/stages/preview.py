"""Stage ``preview``: what a run would do, without writing anything."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.core.tokens import IGNORED
from loraloop.workflows import report
from loraloop.workflows import rows as data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Source, Trainer
    from loraloop.records import Encoded, Job


def preview(
    job: Job,
    rows: int,
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    lora: Lora,
    trainer: Trainer,
    evaluation: Evaluation,
) -> None:
    """Compose, validate, collect, and show the trainer's own tokens with their loss mask, steps and the estimate."""
    skeleton = model.skeleton()
    data.fits(skeleton, lora, trainer)
    data.hint_chat(skeleton, dataset)
    built = data.prepare(source, ocr, dataset, skeleton.tokenizer)
    report.data(built)
    fitting = trainer.fitting(built.train, skeleton.tokenizer, "training")
    console.quarantine(fitting.left_out, "left out of the training")
    console.quarantine(evaluation.chosen(built.validation, skeleton.model, skeleton.tokenizer)[1], "not scored")
    for row, *sides in list(zip(fitting.rows, *fitting.sides, strict=True))[: int(rows)]:
        for side, encoded in zip(("", " (rejected)"), sides, strict=False):
            _show(f"{row.example.task or 'row'}{side}", encoded, skeleton.tokenizer)
    report.estimate(trainer.estimate(skeleton, lora, built))


def _show(name: str, row: Encoded, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print a row's tokens: those that the loss falls on are marked, the others are dim."""
    from rich.console import Console
    from rich.text import Text

    told = f"{row.scored} (between the bars)"
    if IGNORED not in row.labels[-row.scored :]:
        told = f"the last {row.scored} (after the bar)"
    text = Text()
    for learned, run in groupby(zip(row.input_ids, row.labels, strict=True), lambda each: each[1] != IGNORED):
        said = str(tokenizer.decode([token for token, _ in run])).replace("\n", "\\n")
        if text:
            text.append(" | ", style="dim")
        text.append(said, style="bold green" if learned else "dim")
    out = Console(highlight=False)
    out.print(f"{name}: {len(row.input_ids)} tokens, loss on {told}")
    out.print(text)
