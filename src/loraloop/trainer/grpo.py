"""Group-relative policy optimisation (arXiv 2402.03300) of a LoRA with TRL's GRPOTrainer: answers rewarded by rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.errors import DataError, TrainingError
from loraloop.records import Dataset, Estimate, Fitting, LoadedModel, Row, Training
from loraloop.trainer import estimate, fit
from loraloop.trainer.choices import choose
from loraloop.trainer.encode import counted, encode, fit_rows, shorten, warn
from loraloop.trainer.loop import guarded
from loraloop.trainer.reference import Referenced
from loraloop.trainer.rewards import Name, constant, scorer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import Lora, TrainingJob

PATIENCE = 20
"""Steps in a row whose groups may all be without a difference before the training is given up."""
SPARE = 8  # tokens that an answer may have beyond the longest expected one, as in evaluation


def _correct() -> dict[Name, float]:
    return {"correct": 1.0}


@part
class Grpo(Referenced):
    """Training on the model's own answers: it answers each question several times, and rules reward the answers.

    An answer's advantage is its reward less the mean of its group, over the group's standard deviation (equation 3 of
    the paper, section 4.1.2).

    Attributes:
        answers: Answers to each question, a group; ``batch_size * accumulation`` answers are one step.
        temperature: At which they are drawn.
        max_new_tokens: An answer ends here; ``None``: 8 tokens after the longest expected answer.
        beta: Weight of the divergence from the reference; 0 needs none.
        rewards: Weights of ``correct`` (the source's own rule), ``tool_calls`` (valid, names, arguments, all right),
            ``json`` (parses) and ``length`` (not longer than the expected answer), each of which is 0..1.
    """

    NAME = "grpo"

    answers: Annotated[int, Field(ge=2)] = 8
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    beta: Annotated[float, Field(ge=0)] = 0.0
    rewards: Annotated[dict[Name, float], Field(min_length=1)] = Field(default_factory=_correct)

    @model_validator(mode="after")
    def _whole_groups(self) -> Grpo:
        if self.rows_per_step % self.answers:
            raise ValueError(
                f"batch_size * accumulation = {self.rows_per_step} answers are no whole groups of answers="
                f"{self.answers}: make it a multiple"
            )
        return self

    @property
    def repeats(self) -> int:
        """Each row is answered so many times."""
        return self.answers

    def passes(self, sequences: int) -> int:
        """One pass, unless ``epochs`` is a number: the answers are drawn anew, and the rows are no examples to copy."""
        return 1 if self.epochs == "auto" else self.epochs

    def fitting(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, name: str) -> Fitting:
        """The rows whose question and expected answer fit ``max_length``; the answer is never shown to the model."""
        taken = shorten(rows, tokenizer, self.max_length) if self.too_long == "oldest_turns" else rows
        return counted(fit_rows(taken, [encode(taken, tokenizer, self.loss_on)], self.max_length, name), rows)

    def estimate(self, loaded: LoadedModel, lora: Lora, data: Dataset) -> Estimate:
        """What the steps of :meth:`train` would take; drawing the answers comes on top."""
        lengths = self._some(data.train, loaded.tokenizer).lengths()
        choices = choose(self, loaded.model, lengths)
        return estimate.estimate(self, choices, loaded, lora, estimate.Rows(lengths, lengths))

    def train(self, job: TrainingJob) -> tuple[PeftModel, Training]:
        """Train an adapter to give answers that are rewarded more.

        Results and errors are those of :meth:`loraloop.trainer.sft.Sft.train`.

        Raises:
            DataError: There is no row.
            TrainingError: For :data:`PATIENCE` steps no group held answers of different rewards.
        """
        loaded, lora, data = job.loaded, job.lora, job.data
        self.check_lora(lora)
        lora.check_model(loaded.model)
        self.check_model(loaded.model.config)
        train = self._some(data.train, loaded.tokenizer)
        warn(train, "training")
        lengths = train.lengths()
        start = fit.begin(self, job, estimate.Rows(lengths, lengths))
        longest = max(side.scored for side in train.sides[0])

        def build(callback: Any) -> Any:
            from trl.trainer.grpo_config import GRPOConfig
            from trl.trainer.grpo_trainer import GRPOTrainer

            arguments = fit.arguments(self, start, loaded.model, job.output, validates=False)
            del arguments["max_length"]  # the rows fit, and answers are bounded
            return guarded(GRPOTrainer)(
                args=GRPOConfig(
                    num_generations=self.answers,
                    temperature=self.temperature,
                    max_completion_length=self.max_new_tokens or longest + SPARE,
                    beta=self.beta,
                    **arguments,
                ),
                reward_funcs=[self._rewarding(job, train.rows)],
                train_dataset=_columns(train.rows),
                processing_class=loaded.tokenizer,
                callbacks=[callback],
                **fit.adapted(job),
            )

        return fit.fit(build, self, job, start)

    def _rewarding(self, job: TrainingJob, rows: Sequence[Row]) -> Any:
        """TRL's reward function: the rewards of drawn answers to the rows of these numbers."""
        score = scorer(self.rewards, job.reward)
        alike = 0

        def reward(completions: Sequence[str], row: Sequence[int], **_: Any) -> list[float]:
            nonlocal alike
            found = [score(rows[number], answer) for number, answer in zip(row, completions, strict=True)]
            alike = alike + 1 if constant(found, self.answers) else 0
            if alike == PATIENCE:
                raise TrainingError(
                    f"in {PATIENCE} steps every group of {self.answers} answers was rewarded alike (the last with "
                    f"{found[-1]:g}): nothing can be learned. Go on with an adapter that is sometimes right "
                    "(continue_from=models:/NAME@champion), draw more answers (trainer.answers) or bolder ones "
                    "(trainer.temperature), or reward steps on the way (trainer.rewards)"
                )
            return found

        return reward

    def _some(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> Fitting:
        fitting = self.fitting(rows, tokenizer, "training")
        if not fitting.rows:
            raise DataError("trainer=grpo needs questions, and no training row is left")
        return fitting

    def decisive(self) -> Mapping[str, Any]:
        """The settings that decide the trained weights; a resumed run must have the same ones."""
        return {**super().decisive(), "rewards": dict(self.rewards)}


def _columns(rows: Sequence[Row]) -> Any:
    from datasets import Dataset as Columns

    return Columns.from_dict({"prompt": [row.prompt for row in rows], "row": list(range(len(rows)))})
