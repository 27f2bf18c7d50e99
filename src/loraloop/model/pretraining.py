"""The recipe of the bundled tiny model: a byte-level Llama taught small skills by tasks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from loraloop.core import atomic
from loraloop.core.part import part
from loraloop.model import pretraining_tasks

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

BOS, EOS, PAD = 256, 257, 258
IGNORED = -100
POOL = 8
LOG = "pretraining.json"
SECOND = 1000


@dataclass(frozen=True)
class Round:
    """One warm-up and one cosine over rows of one mix."""

    mix: pretraining_tasks.Mix
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    seed: int

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at ``step``."""
        done = min(1.0, step / self.steps)
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


@part
class Pretraining:
    """Pre-train the tiny model from scratch on :mod:`loraloop.model.pretraining_tasks`, in two rounds.

    The first round teaches every task. The second goes on from its weights, rounded to bfloat16 as they are kept, and
    mostly counts; ``start`` names a folder with the weights of a first round and leaves that round out. The same
    settings give the same weights on one machine: threads, seed and number of steps are all fixed.
    """

    output: Path
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 300
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    counting_steps: Annotated[int, Field(ge=0)] = 0
    counting_batch_size: Annotated[int, Field(ge=1)] = 32
    counting_learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    counting_warmup_steps: Annotated[int, Field(ge=0)] = 30
    start: Path | None = None
    hidden_size: Annotated[int, Field(ge=32)] = 128
    layers: Annotated[int, Field(ge=1)] = 4
    heads: Annotated[int, Field(ge=1)] = 4
    prompt: str = "{instruction}\n{input}\n> "
    threads: Annotated[int, Field(ge=1)] = 1
    bf16: bool = True
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _heads_divide(self) -> Pretraining:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size={self.hidden_size} must be a multiple of heads={self.heads}")
        return self

    @property
    def total_steps(self) -> int:
        """Steps of the rounds that :meth:`run` takes."""
        return (self.steps if self.start is None else 0) + self.counting_steps

    def losses(self, steps: int) -> list[float]:
        """The losses of the first ``steps`` steps of the first round; nothing is written."""
        return [loss for _, loss in self._train(self._model(), self._first(), stop=steps)]

    def run(self, progress: Callable[[int, float], None]) -> Path:
        """Train, then write weights, tokenizer and the log of losses to ``output``, whole or not at all.

        Args:
            progress: Called with step and loss after every step of either round.
        """
        from loraloop.model.tokenizer import byte_tokenizer

        model, log = self._begin(progress)
        if self.counting_steps:
            before = self.total_steps - self.counting_steps
            counting = self._learn(model, self._second(), lambda step, loss: progress(before + step, loss))
            log |= {"counting_losses": counting[:20], "counting_last_loss": float(np.mean(counting[-100:]))}
            log |= {"counting_steps": self.counting_steps}
        with atomic.folder(self.output) as folder:
            model.bfloat16().save_pretrained(folder)
            byte_tokenizer().save_pretrained(folder)
            (folder / LOG).write_text(json.dumps(log, indent=1) + "\n", "utf8")
        return self.output

    def _begin(self, progress: Callable[[int, float], None]) -> tuple[LlamaForCausalLM, dict[str, Any]]:
        """The weights and the log of the first round."""
        model = self._model()
        if self.start is None:
            history = self._learn(model, self._first(), progress)
            log = {"first_losses": history[:20], "last_loss": float(np.mean(history[-100:])), "steps": self.steps}
            for weight in model.parameters():  # not model.bfloat16(): that would round the rotary frequencies too
                weight.data = weight.data.bfloat16().float()
            return model, log
        model.load_state_dict(type(model).from_pretrained(self.start).float().state_dict())
        return model, json.loads((self.start / LOG).read_text("utf8"))

    def _first(self) -> Round:
        return Round(
            pretraining_tasks.TASKS, self.steps, self.batch_size, self.learning_rate, self.warmup_steps, self.seed
        )

    def _second(self) -> Round:
        size, rate, warmup = self.counting_batch_size, self.counting_learning_rate, self.counting_warmup_steps
        # Another seed: the second round repeats no row of the first.
        return Round(pretraining_tasks.COUNTING, self.counting_steps, size, rate, warmup, self.seed + SECOND)

    def _learn(self, model: LlamaForCausalLM, round_: Round, progress: Callable[[int, float], None]) -> list[float]:
        history = []
        for step, loss in self._train(model, round_, stop=round_.steps):
            history.append(round(loss, 6))
            progress(step, loss)
        return history

    def _model(self) -> LlamaForCausalLM:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(self.seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=259,
                hidden_size=self.hidden_size,
                intermediate_size=3 * self.hidden_size,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                num_key_value_heads=self.heads,
                max_position_embeddings=2048,
                tie_word_embeddings=True,
                bos_token_id=BOS,
                eos_token_id=EOS,
                pad_token_id=PAD,
            )
        )

    def _train(self, model: LlamaForCausalLM, round_: Round, stop: int) -> Iterator[tuple[int, float]]:
        import torch

        torch.set_num_threads(self.threads)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=round_.learning_rate, betas=(0.9, 0.98), weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, round_.rate)
        model.train()
        for step, (ids, labels) in zip(range(1, stop + 1), self._batches(round_), strict=False):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                logits = model(input_ids=ids).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            yield step, loss.item()

    def _batches(self, round_: Round) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of similar length: a pool of several batches is drawn, sorted, cut and shuffled."""
        rng, size = np.random.default_rng(round_.seed), round_.batch_size
        while True:
            rows = [self._encode(*task) for task in pretraining_tasks.draw(rng, POOL * size, round_.mix)]
            rows.sort(key=lambda row: len(row[0]) + len(row[1]))
            for index in rng.permutation(POOL):
                yield _pad(rows[index * size : (index + 1) * size])

    def _encode(self, instruction: str, text: str, answer: str) -> tuple[list[int], list[int]]:
        prompt = self.prompt.format(instruction=instruction, input=text)
        return [BOS, *prompt.encode()], [*answer.encode(), EOS]


def _pad(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = np.full((len(rows), width), PAD)
    labels = np.full((len(rows), width), IGNORED)
    for index, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[index, :end] = prompt + answer
        labels[index, len(prompt) : end] = answer
    return torch.from_numpy(ids), torch.from_numpy(labels)
