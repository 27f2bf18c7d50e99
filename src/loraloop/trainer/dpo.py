"""Direct preference optimisation (arXiv 2305.18290) of a LoRA with TRL's DPOTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.errors import DataError
from loraloop.records import Dataset, Estimate, LoadedModel, Row, Training
from loraloop.trainer import estimate, fit
from loraloop.trainer.choices import choose
from loraloop.trainer.encode import Encoded, encode, trainable
from loraloop.trainer.loop import guarded
from loraloop.trainer.settings import Settings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import Lora, TrainingJob


@part
class Dpo(Settings):
    """Preference training on rows that carry a worse answer; the base without its adapter is the reference.

    Attributes:
        beta: How strongly the adapter is held to the reference.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1

    @model_validator(mode="after")
    def _never_packs(self) -> Dpo:
        if self.packing is True:
            raise ValueError("packing=true is not available for preference pairs: use packing=auto")
        return self

    def encode(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """The preferred answers as the model will see them, with their labels."""
        return encode(rows, tokenizer, self.max_length)

    def estimate(self, loaded: LoadedModel, lora: Lora, data: Dataset) -> Estimate:
        """What :meth:`train` would take, from the shapes of ``loaded.model``, which may be on the meta device."""
        lengths = self._lengths(_pairs(data.train, "training"), loaded.tokenizer)
        choices = choose(self, loaded.model, lengths)
        return estimate.estimate(self, choices, loaded, lora, estimate.Rows(lengths, lengths))

    def train(self, job: TrainingJob) -> tuple[PeftModel, Training]:
        """Train an adapter to prefer each row's completion to its rejected answer.

        Results and errors are those of :meth:`loraloop.trainer.sft.Sft.train`.

        Raises:
            DataError: No training row has a rejected answer.
        """
        loaded, lora, data = job.loaded, job.lora, job.data
        lora.check_model(loaded.model)
        self.check_model(loaded.model.config)
        train = self._usable(_pairs(data.train, "training"), loaded.tokenizer, "training")
        validation = self._usable(
            [row for row in data.validation if row.rejected is not None], loaded.tokenizer, "validation"
        )
        lengths = self._lengths(train, loaded.tokenizer)
        start = fit.begin(self, job, estimate.Rows(lengths, lengths))

        def build(callback: Any) -> Any:
            from trl.trainer.dpo_config import DPOConfig
            from trl.trainer.dpo_trainer import DPOTrainer

            arguments = fit.arguments(self, start.choices, loaded.model, job.output, validates=bool(validation))
            trainer = guarded(DPOTrainer)(
                model=loaded.model,
                args=DPOConfig(beta=self.beta, **arguments),
                train_dataset=_columns(train),
                eval_dataset=_columns(validation) if validation else None,
                processing_class=loaded.tokenizer,
                peft_config=lora.peft_config(),
                callbacks=[callback],
            )
            trainer.lengths = lengths
            return trainer

        return fit.fit(build, self, job, start)

    def _usable(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, name: str) -> list[Row]:
        """Rows whose better and worse answers both keep a token within ``max_length``."""
        sides = (self.encode(side, tokenizer) for side in (list(rows), _worse(rows)))
        kept = set.intersection(*(set(trainable(side, self.max_length, name)) for side in sides))
        return [rows[index] for index in sorted(kept)]

    def _lengths(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Tokens that the model sees of each pair."""
        sides = (self.encode(side, tokenizer) for side in (list(rows), _worse(rows)))
        return [len(better.input_ids) + len(worse.input_ids) for better, worse in zip(*sides, strict=True)]


def _pairs(rows: Sequence[Row], name: str) -> list[Row]:
    pairs = [row for row in rows if row.rejected is not None]
    if not pairs:
        raise DataError(
            f"trainer=dpo needs rows with a rejected answer; 0 of {len(rows)} {name} rows have one: "
            "take a source that yields pairs, such as source=sessions, or trainer=sft"
        )
    return pairs


def _worse(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, completion=row.rejected or "") for row in rows]


def _columns(rows: Sequence[Row]) -> Any:
    from datasets import Dataset as Columns

    return Columns.from_dict(
        {
            "prompt": [row.prompt for row in rows],
            "chosen": [row.completion for row in rows],
            "rejected": [row.rejected for row in rows],
        }
    )
