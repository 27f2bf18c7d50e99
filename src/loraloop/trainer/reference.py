"""Training that measures answers against a reference: the base without its adapter, or the adapter as it was."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import model_validator

from loraloop.core.part import part
from loraloop.errors import ConfigError
from loraloop.records import Dataset, Estimate, Fitting, LoadedModel, Row
from loraloop.trainer import estimate, fit
from loraloop.trainer.choices import choose
from loraloop.trainer.encode import warn
from loraloop.trainer.settings import LossOn, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import Lora, TrainingJob


@part
class Referenced(Settings):
    """The settings of trainers whose reference is the base, or the adapter that a training goes on with."""

    NAME: ClassVar[str]
    """As ``trainer=NAME`` writes it."""

    loss_on: LossOn = "last"

    @model_validator(mode="after")
    def _never_packs(self) -> Referenced:
        if self.packing is True:
            raise ValueError(f"packing=true is not available for trainer={self.NAME}: use packing=auto")
        return self

    @model_validator(mode="after")
    def _judges_the_last(self) -> Referenced:
        if self.loss_on != "last":
            raise ValueError(
                f"loss_on={self.loss_on} is not available: a preference is about the last turn, write loss_on=last"
            )
        return self

    def check_lora(self, lora: Lora) -> None:
        """Refuse an adapter that changes the base, which is the reference.

        Raises:
            ConfigError: ``init`` moves a part of the base into the adapter, or biases train along.
        """
        changes = [f"lora.init={lora.init}"] if lora.mutates_base else []
        changes += [f"lora.bias={lora.bias}"] if lora.bias != "none" else []
        if changes:
            raise ConfigError(
                f"{' and '.join(changes)} changes the base, and trainer={self.NAME} measures every answer against the "
                "base as it was: use lora.init=default (or gaussian, orthogonal) and lora.bias=none, or trainer=sft"
            )

    @abstractmethod
    def fitting(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, name: str) -> Fitting:
        """The rows that training would take, as the model sees them, and those that it leaves out."""

    @abstractmethod
    def usable(self, data: Dataset, tokenizer: PreTrainedTokenizerBase) -> Fitting:
        """The training rows of :meth:`fitting`.

        Raises:
            DataError: The method cannot learn from what is left of them.
        """

    def estimate(self, loaded: LoadedModel, lora: Lora, data: Dataset) -> Estimate:
        """What the steps of a training would take; ``loaded.model`` may be on the meta device.

        Drawing the answers of ``trainer=grpo`` comes on top.
        """
        lengths = self.usable(data, loaded.tokenizer).lengths()
        choices = choose(self, loaded.model, lengths)
        return estimate.estimate(self, choices, loaded, lora, estimate.Rows(lengths, lengths))

    def begin(self, job: TrainingJob) -> tuple[Fitting, fit.Start]:
        """The rows to train on, and where the run begins, once adapter, model and rows are found to fit.

        Raises:
            ConfigError: Model, adapter and settings do not fit each other.
            DataError: As :meth:`usable`.
        """
        self.check_lora(job.lora)
        job.lora.check_model(job.loaded.model)
        self.check_model(job.loaded.model.config)
        train = self.usable(job.data, job.loaded.tokenizer)
        warn(train, "training")
        lengths = train.lengths()
        return train, fit.begin(self, job, estimate.Rows(lengths, lengths))
