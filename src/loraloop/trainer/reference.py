"""Training that measures answers against a reference: the base without its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import model_validator

from loraloop.core.part import part
from loraloop.errors import ConfigError
from loraloop.trainer.settings import LossOn, Settings

if TYPE_CHECKING:
    from loraloop.protocols import Lora


@part
class Referenced(Settings):
    """The settings of trainers whose reference is the base without its adapter."""

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
