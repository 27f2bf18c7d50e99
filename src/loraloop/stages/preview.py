"""Stage ``preview``: what a run would do, without writing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.workflows import report
from loraloop.workflows import rows as data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Source, Trainer
    from loraloop.records import Job, Row


def preview(
    job: Job,
    rows: int,
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    lora: Lora,
    trainer: Trainer,
) -> None:
    """Compose, validate, collect, and show tokenised rows with their loss mask, steps and the estimate."""
    skeleton = model.skeleton()
    data.fits(skeleton, lora, trainer)
    built = data.prepare(source, ocr, dataset, skeleton.tokenizer)
    report.data(built)
    for row in built.train[: int(rows)]:
        _show(row, skeleton.tokenizer)
    report.estimate(trainer.estimate(skeleton, lora, built))


def _show(row: Row, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print a row's tokens: those that the loss falls on are marked, the prompt is dim."""
    from rich.console import Console
    from rich.text import Text

    from loraloop.core.tokens import encode_rows

    ((ids, prompt),) = encode_rows(tokenizer, [(row.prompt, row.completion)])
    text = Text(str(tokenizer.decode(ids[:prompt])).replace("\n", "\\n"), style="dim")
    text.append(" | ", style="dim")
    text.append(str(tokenizer.decode(ids[prompt:])).replace("\n", "\\n"), style="bold green")
    out = Console(highlight=False)
    out.print(f"{row.example.task or 'row'}: {len(ids)} tokens, loss on the last {len(ids) - prompt} (after the bar)")
    out.print(text)
