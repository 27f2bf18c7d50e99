"""Group-relative policy optimisation (arXiv 2402.03300) of a LoRA with TRL's GRPOTrainer: answers rewarded by rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.core.row_name import row_name
from loraloop.core.turns import turns
from loraloop.errors import DataError, TrainingError
from loraloop.records import Dataset, Encoded, Fitting, Quarantined, Row, Training
from loraloop.trainer import fit
from loraloop.trainer.encode import fit_answers
from loraloop.trainer.grpo_shared import sharing
from loraloop.trainer.loop import guarded
from loraloop.trainer.reference import Referenced
from loraloop.trainer.rewards import Name, constant, scorer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import TrainingJob

BAD = "its answer is labelled bad, so it says nothing of a right one"
PATIENCE = 20
"""Steps in a row, or all of a shorter run, whose groups may be without a difference before it is given up."""
SPARE = 8  # tokens that an answer may have beyond the longest expected one, as in evaluation


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
            ``json`` (parses), ``length`` (not longer than the expected answer), ``similar`` (the share of the text that
            agrees) and ``numbers`` (how near they are to the expected ones), each of which is 0..1.
    """

    NAME = "grpo"

    answers: Annotated[int, Field(ge=2)] = 8
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    beta: Annotated[float, Field(ge=0)] = 0.0
    rewards: Annotated[dict[Name, Weight], Field(min_length=1)] = Field(default_factory=_correct)

    @model_validator(mode="after")
    def _rewards_something(self) -> Grpo:
        if not any(self.rewards.values()):
            raise ValueError("rewards are all 0, so that no answer is better than another: set one, such as correct=1")
        return self

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

    def steps_per_pass(self, sequences: int) -> int:
        """Steps of whole groups: TRL leaves the questions out that would not fill the last one."""
        return sequences // self.rows_per_step

    def fitting(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, name: str) -> Fitting:
        """Each learned turn with its true past, where turn and past fit ``max_length``; the answer is never shown.

        Left out are answers that are labelled bad: they are not what is expected.
        """
        asked = [turn for row in rows for turn in turns(row, str(tokenizer.eos_token))]
        bad = tuple(Quarantined(row_name(row), BAD) for row in asked if row.example.label is False)
        good = [row for row in asked if row.example.label is not False]
        return fit_answers(self, good, bad, tokenizer, name)

    def train(self, job: TrainingJob) -> tuple[PeftModel, Training]:
        """Train an adapter to give answers that are rewarded more.

        Results and errors are those of :meth:`loraloop.trainer.sft.Sft.train`.

        Raises:
            DataError: There is no row.
            TrainingError: For :data:`PATIENCE` steps, or all of them, no group held answers of different rewards.
        """
        train, start = self.begin(job)
        limit = self._limit(train.sides[0], job.loaded.model.config)

        def build(callback: Any) -> Any:
            from trl.trainer.grpo_config import GRPOConfig
            from trl.trainer.grpo_trainer import GRPOTrainer

            arguments = fit.arguments(self, start, job.loaded.model, job.output, validates=False)
            del arguments["max_length"]  # the rows fit, and answers are bounded
            return repeating(GRPOTrainer)(
                args=GRPOConfig(
                    num_generations=self.answers,
                    temperature=self.temperature,
                    max_completion_length=limit,
                    disable_dropout=True,  # the answers are drawn, and rewarded, as they are served
                    beta=self.beta,
                    loss_type="dapo",  # a sum over the step's tokens: grpo_shared leaves rows out and orders them
                    **arguments,
                ),
                reward_funcs=[self._rewarding(job, train.rows)],
                train_dataset=_columns(train.rows),
                processing_class=job.loaded.tokenizer,
                callbacks=[callback],
                **fit.adapted(job),
            )

        return fit.fit(build, self, job, start)

    def _rewarding(self, job: TrainingJob, rows: Sequence[Row]) -> Any:
        """TRL's reward function: the rewards of drawn answers to the rows of these numbers."""
        score, patience = scorer(self.rewards, job.reward), min(PATIENCE, self.steps(len(rows) * self.answers))
        weighed = ", ".join(f"{name}={weight:g}" for name, weight in self.rewards.items() if weight)
        others = ", ".join(name for name in get_args(Name) if not self.rewards.get(name)) or "all are weighed"
        alike = 0

        def reward(completions: Sequence[str], row: Sequence[int], **_: Any) -> list[float]:
            nonlocal alike
            found = [score(rows[number], answer) for number, answer in zip(row, completions, strict=True)]
            alike = alike + 1 if constant(found, self.answers) else 0
            if alike == patience:
                raise TrainingError(
                    f"in {patience} steps every group of {self.answers} answers was rewarded alike by trainer.rewards "
                    f"{weighed} (the last with {found[-1]:g}): nothing can be learned. Weigh a rule too that tells "
                    f"such answers apart (trainer.rewards.RULE=0.5; not weighed: {others}), go on with an adapter "
                    "that is sometimes right (continue_from=models:/NAME@champion), or draw more answers "
                    "(trainer.answers) or bolder ones (trainer.temperature)"
                )
            return found

        return reward

    def _limit(self, sides: Sequence[Encoded], config: Any) -> int:
        """Tokens of an answer at most, also by the positions that the longest prompt leaves."""
        wanted = self.max_new_tokens or max(side.scored for side in sides) + SPARE
        positions = getattr(config, "max_position_embeddings", None)
        return wanted if positions is None else min(wanted, positions - max(side.start for side in sides))

    def usable(self, data: Dataset, tokenizer: PreTrainedTokenizerBase) -> Fitting:
        """The questions to train on; refused where they do not fill a step."""
        fitting = self.fitting(data.train, tokenizer, "training")
        needed = self.rows_per_step // self.answers
        if len(fitting.rows) < needed:
            raise DataError(
                f"a step of trainer=grpo asks {needed} questions, and {len(fitting.rows)} are left to train on: "
                f"collect more, or ask one a step: trainer.batch_size={self.answers} trainer.accumulation=1"
            )
        return fitting


def repeating(base: type[Any]) -> type[Any]:
    """A guarded GRPOTrainer whose order of questions depends on the seed and the epoch alone, also after a resume."""

    class Repeating(sharing(guarded(base))):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            sampler, seed = super()._get_train_sampler(dataset), self.args.seed
            sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(seed + epoch)
            return sampler

    return Repeating


def _columns(rows: Sequence[Row]) -> Any:
    from datasets import Dataset as Columns

    return Columns.from_dict({"prompt": [row.prompt for row in rows], "row": list(range(len(rows)))})
