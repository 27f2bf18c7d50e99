"""The recipe of the bundled tiny model: a byte-level Llama taught small skills by drills."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, model_validator

from loraloop.core import atomic
from loraloop.core.part import part
from loraloop.core.tokens import IGNORED
from loraloop.model import pretraining_tasks

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

BOS, EOS, PAD = 256, 257, 258
POOL = 8
LOG = "pretraining.json"


@part
class Pretraining:
    """Pre-train the tiny model from scratch on :mod:`loraloop.model.pretraining_tasks`.

    The same settings give the same weights on one machine: threads, seed and number of steps are all fixed.
    """

    output: Path
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 300
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
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

    def losses(self, steps: int) -> list[float]:
        """The losses of the first ``steps`` steps of the recipe; nothing is written."""
        return [loss for _, loss in self._train(self._model(), stop=steps)]

    def run(self, progress: Callable[[int, float], None]) -> Path:
        """Train, then write weights, tokenizer and the log of losses to ``output``, whole or not at all.

        Args:
            progress: Called with step and loss after every step.
        """
        from loraloop.model.tokenizer import byte_tokenizer

        model = self._model()
        history = []
        for step, loss in self._train(model, stop=self.steps):
            history.append(round(loss, 6))
            progress(step, loss)
        with atomic.folder(self.output) as folder:
            model.bfloat16().save_pretrained(folder)
            byte_tokenizer().save_pretrained(folder)
            log = {"first_losses": history[:20], "last_loss": float(np.mean(history[-100:])), "steps": self.steps}
            (folder / LOG).write_text(json.dumps(log, indent=1) + "\n", "utf8")
        return self.output

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

    def _train(self, model: LlamaForCausalLM, stop: int) -> Iterator[tuple[int, float]]:
        import torch

        torch.set_num_threads(self.threads)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.learning_rate, betas=(0.9, 0.98), weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        model.train()
        for step, (ids, labels) in zip(range(1, stop + 1), self._batches(), strict=False):
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

    def _rate(self, step: int) -> float:
        done = min(1.0, step / self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup_steps)) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of similar length: a pool of several batches is drawn, sorted, cut and shuffled."""
        rng = np.random.default_rng(self.seed)
        while True:
            rows = [self._encode(*drill) for drill in pretraining_tasks.draw(rng, POOL * self.batch_size)]
            rows.sort(key=lambda row: len(row[0]) + len(row[1]))
            for index in rng.permutation(POOL):
                yield _pad(rows[index * self.batch_size : (index + 1) * self.batch_size])

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
