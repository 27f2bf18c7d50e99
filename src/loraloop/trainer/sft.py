"""Supervised fine-tuning of a LoRA with TRL's SFTTrainer: the loss falls on what the assistant says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from loraloop.core.part import part
from loraloop.core.row_name import row_name
from loraloop.core.tokens import IGNORED
from loraloop.errors import ConfigError, DataError
from loraloop.records import Dataset, Encoded, Estimate, Fitting, LoadedModel, Quarantined, Row, Training
from loraloop.trainer import estimate, fit, processes, sharding
from loraloop.trainer.choices import choose, isolating_attention
from loraloop.trainer.encode import by_length, fit_answers, warn
from loraloop.trainer.loop import sft_trainer
from loraloop.trainer.member import member
from loraloop.trainer.settings import Settings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import Lora, TrainingJob

FILLER = Encoded([0, 0], [IGNORED, IGNORED])
"""Fills the last batches of several processes; it has no token to learn and changes no loss."""
BAD = "its answer is labelled bad: supervised training would learn to give it"


@part
class Sft(Settings):
    """Supervised fine-tuning."""

    together: ClassVar[bool] = True

    def check(self) -> None:
        """Refuse packing where nothing on this machine could keep neighbours apart.

        Raises:
            ConfigError: ``packing`` is true and there is no GPU, or there are fewer GPUs than ``processes``.
        """
        import torch

        processes.check(self)
        if self.packing is True and self.processes > 1:
            raise ConfigError("trainer.packing=true and trainer.processes above 1 do not go together: leave out one")
        if self.packing is True and not torch.cuda.is_available():
            raise ConfigError(
                "trainer.packing=true needs FlashAttention on a GPU: without it packed rows see their neighbours, or "
                "cost more than padding. Use trainer.packing=auto: rows of similar length share a batch"
            )

    def fitting(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, name: str) -> Fitting:
        """The rows as the model will see them, with their labels; those too long or labelled bad are left out.

        Raises:
            DataError: Every row is labelled bad.
        """
        bad = tuple(Quarantined(row_name(row), BAD) for row in rows if row.example.label is False)
        if bad and len(bad) == len(rows):
            raise DataError(
                f"all {len(bad)} {name} rows are labelled bad, and supervised training learns from good answers only: "
                "add rows whose label is true or empty, or better answers beside the bad ones (chosen and rejected) "
                "and trainer=dpo"
            )
        good = tuple(row for row in rows if row.example.label is not False) if bad else rows
        return fit_answers(self, good, bad, tokenizer, name)

    def estimate(self, loaded: LoadedModel, lora: Lora, data: Dataset) -> Estimate:
        """What :meth:`train` would take, from the shapes of ``loaded.model``, which may be on the meta device."""
        rows = self.fitting(data.train, loaded.tokenizer, "training").sides[0]
        choices = choose(self, loaded.model, [len(row.input_ids) for row in rows])
        return estimate.estimate(self, choices, loaded, lora, estimate.Rows.of(rows))

    def train(self, job: TrainingJob) -> tuple[PeftModel, Training]:
        """Train an adapter; ``job.loaded.model`` is wrapped in place.

        Returns:
            The model with its adapter in evaluation mode, and what the training took. After a resume, seconds and
            tokens are those of this part.

        Raises:
            ConfigError: Model, adapter and settings do not fit each other.
            TrainingError: Too many rows without a trainable token, a loss that is not finite, no checkpoint to resume
                from, or an output folder in use. No adapter is left.
            PrunedError: ``on_evaluation`` ended the training. No adapter is left.
            KeyboardInterrupt: After Ctrl+C, once the current step is saved as a checkpoint.
        """
        loaded, lora, data = job.loaded, job.lora, job.data
        lora.check_model(loaded.model)
        self.check_model(loaded.model.config)
        sharding.require(self, lora, loaded.base)
        if self.processes > 1 and member() is None:
            fit.prepare_folder(job.output, job.resume)
            return processes.train(self, job)
        if self.packing is True and not isolating_attention(loaded.model):
            raise ConfigError(
                "trainer.packing=true needs model.attention=flash_attention_2, or rows see their neighbours"
            )
        train = self.fitting(data.train, loaded.tokenizer, "training")
        validation = self.fitting(data.validation, loaded.tokenizer, "validation")
        warn(train, "training")
        warn(validation, "validation")
        start = fit.begin(self, job, estimate.Rows.of(train.sides[0]))
        fillers = [FILLER] if self.processes > 1 else []

        def build(callback: Any) -> Any:
            from trl.trainer.sft_config import SFTConfig

            args = SFTConfig(
                packing=start.choices.packing,
                dataset_kwargs={"skip_prepare_dataset": not start.choices.packing},
                **fit.arguments(self, start, loaded.model, job.output, validates=bool(validation.rows)),
            )
            sharding.on_cpus(self)
            trainer = sft_trainer()(
                **fit.adapted(job),
                args=args,
                train_dataset=_columns([*train.sides[0], *fillers]),
                eval_dataset=_columns(by_length(validation.sides[0])) if validation.rows else None,
                processing_class=loaded.tokenizer,
                callbacks=[callback],
            )
            trainer.fillers = len(fillers)
            lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
            trainer.lengths = lengths[: len(lengths) - len(fillers)]
            return trainer

        return fit.fit(build, self, job, start)


def _columns(rows: Sequence[Encoded]) -> Any:
    from datasets import Dataset as Columns

    return Columns.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})
