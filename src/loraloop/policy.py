"""The policy: the rules of the loop, from a rating to a promotion or a rollback."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SkipValidation, field_validator, model_validator

from loraloop.core.durations import Span
from loraloop.core.part import part
from loraloop.protocols import Canary, Trigger

Recipe = Literal["sft", "sft_continue", "kto", "dpo"]
"""Supervised training of a new adapter on corrections and earlier examples, or of the champion on corrections alone;
KTO on stars, DPO on pairs of answers."""
Role = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]


@part
class Mix:
    """What a training set is made of, in shares that add up to 1.

    Attributes:
        corrective: Share of badly rated sessions with the answers that they should have had.
        earlier: Share of examples that the adapter was trained on before, so that it does not forget them.
        rows: Rows of the whole set. Corrective examples are repeated to fill their share. Earlier examples are not
            repeated: with too few of them, the set is smaller.
    """

    corrective: Annotated[float, Field(gt=0, le=1)] = 0.2
    earlier: Annotated[float, Field(ge=0, lt=1)] = 0.8
    rows: Annotated[int, Field(ge=1)] = 2500

    @model_validator(mode="after")
    def _whole(self) -> Mix:
        total = self.corrective + self.earlier
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(
                f"corrective={self.corrective:g} and earlier={self.earlier:g} add up to {total:g}, and shares add up "
                f"to 1: write policy.mix.earlier={max(0.0, 1 - self.corrective):g}"
            )
        return self


@part
class Policy:
    """The rules of the loop.

    Attributes:
        name: The policy's name in the ledger.
        roles: Agent roles (``server.roles``) whose models the loop retrains.
        every: Time between two ticks.
        trigger: The rule that decides when to train again.
        canary: The rule that decides whether a new version replaces the champion.
        cooldown: Least time between two retrainings of a role.
        daily_cap: Most retrainings of a role in 24 hours.
        below: Stars; sessions rated below it are learned from.
        min_corrective: Fewest such sessions with an answer to learn from; with fewer there is no training.
        learn: What a retraining learns by: ``sft`` a new adapter of corrections and earlier examples;
            ``sft_continue`` goes on with the champion by corrections alone, at a fifth of the trainer's learning rate;
            ``kto`` goes on with it by answers that stars label good or bad, ``dpo`` by pairs of a good and a bad
            answer.
            ``auto`` takes what taught most when it was measured: ``sft_continue`` from 500 corrections on, where the
            champion has the shape that ``lora`` says, else ``sft``.
        mix: What the training set is made of.
        golden: JSONL file that candidates are measured on; ``None``: held-out rows of ``source``, drawn once per role.
        golden_rows: How many rows are drawn.
        max_forgetting: Of the golden rows, the largest share that the champion answers right and a candidate wrong;
            also the largest drop of the share of right answers in any slice.
        judge: ``rank``: a judge's scores order the review queue; ``trigger``: they also stand for the ratings of
            answers that nobody rated, while the judge is shown to agree with people; ``never``: they do nothing. No
            score of a judge ever promotes.
        judge_min_agreement: The lower bound of the judge's weighted kappa against people from which its scores count.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)] = "default"
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    every: Span = "4h"
    trigger: SkipValidation[Trigger]
    canary: SkipValidation[Canary]
    cooldown: Span = "24h"
    daily_cap: Annotated[int, Field(ge=1)] = 2
    below: Annotated[int, Field(ge=2, le=5)] = 4
    min_corrective: Annotated[int, Field(ge=1)] = 5
    learn: Recipe | Literal["auto"] = "auto"
    mix: Mix = Field(default_factory=Mix)
    golden: Path | None = None
    golden_rows: Annotated[int, Field(ge=1)] = 200
    max_forgetting: Annotated[float, Field(ge=0, le=1)] = 0.1
    judge: Literal["rank", "trigger", "never"] = "rank"
    judge_min_agreement: Annotated[float, Field(gt=0, le=1)] = 0.6

    @field_validator("roles")
    @classmethod
    def _each_once(cls, roles: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({role for role in roles if roles.count(role) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is there twice: name each role once")
        return roles

    @model_validator(mode="after")
    def _promotes_what_would_not_trigger(self) -> Policy:
        """Refuse a canary that promotes at a rating at which the trigger would fire at once."""
        least, threshold = self.canary.least_rating, self.trigger.threshold
        if least is not None and least < threshold:
            raise ValueError(
                f"canary promotes from {least:g} stars on and trigger looks for an average below {threshold:g}: a "
                "version would be promoted at a rating that triggers at once; write "
                f"canary.min_rating={threshold:g} or more, or lower the trigger's threshold to {least:g} or less"
            )
        return self
