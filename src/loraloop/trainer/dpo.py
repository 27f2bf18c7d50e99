"""Direct preference optimisation (arXiv 2305.18290) of a LoRA with TRL's DPOTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from loraloop.core.part import part
from loraloop.core.row_name import row_name
from loraloop.errors import DataError
from loraloop.records import Dataset, Fitting, Quarantined, Row, Training
from loraloop.trainer import fit
from loraloop.trainer.encode import counted, encode, fit_rows, shorten, warn
from loraloop.trainer.loop import preferring
from loraloop.trainer.reference import Referenced

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import TrainingJob


@part
class Dpo(Referenced):
    """Preference training on rows that carry a worse answer, against a reference.

    A pair's loss is ``-log sigmoid(beta * (r_better - r_worse))``, where ``r`` is the log ratio of an answer's
    probability to that under the reference (equation 7 of the paper). The reference is the base without its adapter, or
    the adapter as it was where the training goes on with one.

    Attributes:
        beta: How strongly the adapter is held to the reference.
    """

    NAME = "dpo"

    beta: Annotated[float, Field(gt=0)] = 0.1

    def fitting(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, name: str) -> Fitting:
        """Pairs with their better and their worse answer as the model will see them.

        Left out are rows without a rejected answer, with one that equals the answer, or with one that is too long.
        """
        unpaired = [(row, _no_pair(row)) for row in rows]
        given = [row for row, reason in unpaired if not reason]
        pairs = shorten(given, tokenizer, self.max_length) if self.too_long == "oldest_turns" else given
        sides = [
            encode(pairs, tokenizer, self.loss_on),
            encode([replace(row, completion=row.rejected or "") for row in pairs], tokenizer, self.loss_on),
        ]
        fitting = fit_rows(pairs, sides, self.max_length, name, tokenizer.model_max_length)
        left_out = tuple(Quarantined(row_name(row), reason) for row, reason in unpaired if reason)
        return counted(replace(fitting, left_out=left_out + fitting.left_out), given)

    def train(self, job: TrainingJob) -> tuple[PeftModel, Training]:
        """Train an adapter to prefer each row's completion to its rejected answer.

        Results and errors are those of :meth:`loraloop.trainer.sft.Sft.train`.

        Raises:
            DataError: No training row has a rejected answer.
        """
        train, start = self.begin(job)
        validation = self.fitting(job.data.validation, job.loaded.tokenizer, "validation")
        warn(validation, "validation")

        def build(callback: Any) -> Any:
            from trl.trainer.dpo_config import DPOConfig
            from trl.trainer.dpo_trainer import DPOTrainer

            arguments = fit.arguments(self, start, job.loaded.model, job.output, validates=bool(validation.rows))
            trainer = preferring(DPOTrainer)(
                **fit.adapted(job),
                args=DPOConfig(beta=self.beta, **arguments),
                train_dataset=columns(train),
                eval_dataset=columns(validation) if validation.rows else None,
                processing_class=job.loaded.tokenizer,
                callbacks=[callback],
            )
            trainer.lengths = train.lengths()
            return trainer

        return fit.fit(build, self, job, start)

    def usable(self, data: Dataset, tokenizer: PreTrainedTokenizerBase) -> Fitting:
        """The pairs to train on; refused where there is none."""
        fitting = self.fitting(data.train, tokenizer, "training")
        if not fitting.rows:
            raise DataError(
                f"trainer=dpo needs rows with another, rejected answer; 0 of {len(data.train)} training rows have one: "
                "take a source that yields pairs, such as source=sessions, or trainer=sft"
            )
        return fitting


def _no_pair(row: Row) -> str:
    """Why a row teaches no preference, or nothing."""
    if row.rejected is None:
        return "no rejected answer"
    return "its rejected answer equals its answer" if row.rejected == row.completion else ""


def columns(fitting: Fitting) -> Any:
    """TRL's columns of token ids: a pair shares the tokens before the first that either side learns."""
    from datasets import Dataset as Columns

    chosen, rejected = fitting.sides
    shared = [min(better.start, worse.start) for better, worse in zip(chosen, rejected, strict=True)]
    return Columns.from_dict(
        {
            "prompt_ids": [side.input_ids[:start] for side, start in zip(chosen, shared, strict=True)],
            "chosen_ids": [side.input_ids[start:] for side, start in zip(chosen, shared, strict=True)],
            "rejected_ids": [side.input_ids[start:] for side, start in zip(rejected, shared, strict=True)],
        }
    )
