"""Kahneman-Tversky optimisation (arXiv 2402.01306) of a LoRA with TRL's KTOTrainer: single answers, good or bad."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.core.row_name import row_name
from loraloop.errors import DataError
from loraloop.records import Dataset, Estimate, Fitting, LoadedModel, Quarantined, Row, Training
from loraloop.trainer import estimate, fit
from loraloop.trainer.choices import choose
from loraloop.trainer.encode import counted, encode, fit_rows, shorten, warn
from loraloop.trainer.loop import grouped
from loraloop.trainer.reference import Referenced

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import Lora, TrainingJob

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
log = logging.getLogger(__name__)


@part
class Kto(Referenced):
    """Training on answers that are labelled good or bad, one by one; the base without its adapter is the reference.

    A good answer's loss is ``1 - sigmoid(beta * (r - z))`` and a bad one's ``1 - sigmoid(beta * (z - r))``, where ``r``
    is the log ratio of the answer's probabilities with and without the adapter, and ``z >= 0`` the mean of it over
    answers to other questions of the same pass, an estimate of the divergence from the base (equation 7 of the paper).

    Attributes:
        beta: How strongly the adapter is held to the reference.
        good_weight: Of the loss of good answers; ``auto`` gives them the same sum of weights as the bad ones.
        bad_weight: Of the loss of bad answers.
    """

    NAME = "kto"

    batch_size: Annotated[int, Field(ge=2)] = 4
    beta: Annotated[float, Field(gt=0)] = 0.1
    good_weight: Weight | Literal["auto"] = "auto"
    bad_weight: Weight = 1.0

    @model_validator(mode="after")
    def _compares_rows(self) -> Kto:
        if self.micro_batch == 1:
            raise ValueError(
                "micro_batch=1 leaves no other row to estimate the divergence from the base by: write "
                "micro_batch=auto, or 2 or more"
            )
        return self

    def fitting(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, name: str) -> Fitting:
        """Labelled rows as the model will see them; those without a label and those too long are left out."""
        unlabelled = tuple(Quarantined(row_name(row), "no label") for row in rows if row.example.label is None)
        given = [row for row in rows if row.example.label is not None]
        taken = shorten(given, tokenizer, self.max_length) if self.too_long == "oldest_turns" else given
        fitting = fit_rows(taken, [encode(taken, tokenizer, self.loss_on)], self.max_length, name)
        return counted(replace(fitting, left_out=unlabelled + fitting.left_out), given)

    def estimate(self, loaded: LoadedModel, lora: Lora, data: Dataset) -> Estimate:
        """What :meth:`train` would take, from the shapes of ``loaded.model``, which may be on the meta device."""
        lengths = self._labelled(data.train, loaded.tokenizer).lengths()
        choices = choose(self, loaded.model, lengths)
        return estimate.estimate(self, choices, loaded, lora, estimate.Rows(lengths, lengths))

    def train(self, job: TrainingJob) -> tuple[PeftModel, Training]:
        """Train an adapter to give answers like the good ones rather than like the bad ones.

        Results and errors are those of :meth:`loraloop.trainer.sft.Sft.train`.

        Raises:
            DataError: The training rows lack one of the two labels.
        """
        loaded, lora, data = job.loaded, job.lora, job.data
        self.check_lora(lora)
        lora.check_model(loaded.model)
        self.check_model(loaded.model.config)
        train = self._labelled(data.train, loaded.tokenizer)
        validation = self.fitting(data.validation, loaded.tokenizer, "validation")
        warn(train, "training")
        warn(validation, "validation")
        lengths = train.lengths()
        start = fit.begin(self, job, estimate.Rows(lengths, lengths))
        weight = self._weight(train.rows)

        def build(callback: Any) -> Any:
            from trl.trainer.kto_config import KTOConfig
            from trl.trainer.kto_trainer import KTOTrainer

            arguments = fit.arguments(self, start, loaded.model, job.output, validates=bool(validation.rows))
            trainer = grouped(KTOTrainer)(
                **fit.adapted(job),
                args=KTOConfig(
                    beta=self.beta, desirable_weight=weight, undesirable_weight=self.bad_weight, **arguments
                ),
                train_dataset=_columns(train.rows),
                eval_dataset=_columns(validation.rows) if validation.rows else None,
                processing_class=loaded.tokenizer,
                callbacks=[callback],
            )
            trainer.lengths = lengths
            return trainer

        return fit.fit(build, self, job, start)

    def _labelled(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> Fitting:
        fitting = self.fitting(rows, tokenizer, "training")
        good = sum(bool(row.example.label) for row in fitting.rows)
        if not 0 < good < len(fitting.rows):
            raise DataError(
                f"trainer=kto needs answers labelled good and answers labelled bad; of {len(rows)} training rows "
                f"{good} are good and {len(fitting.rows) - good} bad: take a source with both, such as "
                "source=ratings (sessions by their stars) or a file with a column label, or trainer=sft"
            )
        return fitting

    def _weight(self, rows: Sequence[Row]) -> float:
        """The weight of good answers."""
        good = sum(bool(row.example.label) for row in rows)
        bad = len(rows) - good
        weight = self.bad_weight * bad / good if self.good_weight == "auto" else self.good_weight
        log.info("%d good answers of weight %.3g, %d bad ones of weight %.3g", good, weight, bad, self.bad_weight)
        return weight


def _columns(rows: Sequence[Row]) -> Any:
    from datasets import Dataset as Columns

    return Columns.from_dict(
        {
            "prompt": [row.prompt for row in rows],
            "completion": [row.completion for row in rows],
            "label": [bool(row.example.label) for row in rows],
        }
    )
