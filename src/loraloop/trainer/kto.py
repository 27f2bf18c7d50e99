"""Kahneman-Tversky optimisation (arXiv 2402.01306) of a LoRA with TRL's KTOTrainer: single answers, good or bad."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.core.row_name import row_name
from loraloop.errors import DataError
from loraloop.records import Dataset, Fitting, Quarantined, Row, Training
from loraloop.trainer import fit
from loraloop.trainer.encode import fit_answers, warn
from loraloop.trainer.loop import preferring
from loraloop.trainer.reference import Referenced

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import TrainingJob

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
log = logging.getLogger(__name__)
NAMES = {True: "good", False: "bad"}


@part
class Kto(Referenced):
    """Training on answers that are labelled good or bad, one by one, against a reference.

    A good answer's loss is ``1 - sigmoid(beta * (r - z))`` and a bad one's ``1 - sigmoid(beta * (z - r))``, where ``r``
    is the log ratio of the answer's probability to that under the reference, and ``z >= 0`` the mean of it over the
    rows of a pass, each with an answer to another question, an estimate of the divergence (equation 7 of the paper).
    The reference is the base without its adapter, or the adapter as it was where the training goes on with one.

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
        return fit_answers(self, given, unlabelled, tokenizer, name)

    def train(self, job: TrainingJob) -> tuple[PeftModel, Training]:
        """Train an adapter to give answers like the good ones rather than like the bad ones.

        Results and errors are those of :meth:`loraloop.trainer.sft.Sft.train`.

        Raises:
            DataError: The training rows lack one of the two labels.
        """
        train, start = self.begin(job)
        validation = self.fitting(job.data.validation, job.loaded.tokenizer, "validation")
        if job.data.validation and all(row.example.label is None for row in job.data.validation):
            log.info("the held-out rows have no label: they are scored, but not by the loss of trainer=kto")
        else:
            warn(validation, "validation")
        weight = self._weight(train.rows)

        def build(callback: Any) -> Any:
            from trl.trainer.kto_config import KTOConfig
            from trl.trainer.kto_trainer import KTOTrainer

            arguments = fit.arguments(self, start, job.loaded.model, job.output, validates=bool(validation.rows))
            trainer = preferring(KTOTrainer)(
                **fit.adapted(job),
                args=KTOConfig(
                    beta=self.beta, desirable_weight=weight, undesirable_weight=self.bad_weight, **arguments
                ),
                train_dataset=columns(train),
                eval_dataset=columns(validation) if validation.rows else None,
                processing_class=job.loaded.tokenizer,
                callbacks=[callback],
            )
            trainer.lengths = train.lengths()
            return trainer

        return fit.fit(build, self, job, start)

    def usable(self, data: Dataset, tokenizer: PreTrainedTokenizerBase) -> Fitting:
        """The labelled rows to train on; refused where one of the labels is missing."""
        fitting = self.fitting(data.train, tokenizer, "training")
        good = sum(bool(row.example.label) for row in fitting.rows)
        if not 0 < good < len(fitting.rows):
            raise DataError(
                f"trainer=kto needs answers labelled good and answers labelled bad; of {len(data.train)} training rows "
                f"{good} are good and {len(fitting.rows) - good} bad: {_way_out(fitting.rows, data.validation)}"
            )
        return fitting

    def _weight(self, rows: Sequence[Row]) -> float:
        """The weight of good answers."""
        good = sum(bool(row.example.label) for row in rows)
        bad = len(rows) - good
        weight = self.bad_weight * bad / good if self.good_weight == "auto" else self.good_weight
        log.info("%d good answers of weight %.3g, %d bad ones of weight %.3g", good, weight, bad, self.bad_weight)
        return weight


def _way_out(taken: Sequence[Row], held_out: Sequence[Row]) -> str:
    """Where answers are that the training rows lack, and what a person can do."""
    lacking = {True, False}.difference(bool(row.example.label) for row in taken)
    apart = [row.example.label for row in held_out if row.example.label in lacking]
    if not apart:
        return (
            "take a source with both, such as source=ratings (sessions by their stars) or a file with a column label, "
            "or trainer=sft"
        )
    counts = " and ".join(f"{apart.count(label)} {word}" for label, word in NAMES.items() if label in apart)
    return (
        f"{counts} answers of the source are among the {len(held_out)} held-out rows: hold out others "
        "(another dataset.seed) or fewer (dataset.validation_share=0.1), or collect more of them"
    )


def columns(fitting: Fitting) -> Any:
    """TRL's columns of token ids, with a mismatched answer for each row, of which the divergence is estimated.

    TRL takes that of the next row in the file, which may answer the same question: ``z`` would follow the reward.
    """
    from datasets import Dataset as Columns

    (sides,) = fitting.sides
    prompts = [side.input_ids[: side.start] for side in sides]
    answers = [side.input_ids[side.start :] for side in sides]
    return Columns.from_dict(
        {
            "prompt_ids": prompts,
            "completion_ids": answers,
            "label": [bool(row.example.label) for row in fitting.rows],
            "KL_completion_ids": [answers[place] for place in _mismatched(prompts)],
        }
    )


def _mismatched(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each prompt the place of the next other one, going round; its own where there is no other."""
    count, found = len(prompts), list(range(len(prompts)))
    following = 0
    for place in reversed(range(2 * count)):  # the second time round the first ones are known
        here, after = place % count, (place + 1) % count
        following = after if prompts[after] != prompts[here] else following
        found[here] = following if prompts[following] != prompts[here] else here
    return found
