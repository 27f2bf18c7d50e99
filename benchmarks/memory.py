"""Peak memory of a training run: what the estimate said before it, and what the process took.

    python benchmarks/memory.py [--model bundled:tiny] [--model FOLDER] [--steps 3] [--out FILE]

Every case is a process of its own, which estimates, loads the base, and trains a LoRA of rank 16 on q, k, v and o on
rows of coin flips. ``measured`` is the resident size at its highest between the beginning and the end of training.
``hand`` is a loop without transformers' Trainer on the same batches, which projects the scored positions alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from loraloop.lora import Lora
from loraloop.model.causal import CausalLM
from loraloop.protocols import TrainingJob
from loraloop.records import Dataset, Example, LoadedModel, Provenance, Row
from loraloop.trainer import memory
from loraloop.trainer.sft import Sft

FLIPS = 32


class Silent:
    """A run that keeps nothing."""

    id = link = None

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Forget."""

    def params(self, values: dict[str, Any]) -> None:
        """Forget."""


def rows(count: int) -> tuple[Row, ...]:
    rng = np.random.default_rng(0)
    made = []
    for flips in rng.choice(list("HT"), size=(count, FLIPS)):
        line = "".join(flips)
        prompt = f"Count the heads and tails.\n{line}\n> "
        answer = f"{line.count('H')} heads, {line.count('T')} tails"
        made.append(
            Row(prompt, answer, Example.one_turn(input=line, output=answer, provenance=Provenance(source="flips")))
        )
    return tuple(made)


def cases(models: list[str]) -> list[dict[str, Any]]:
    sizes = [{"batch": batch, "gradient_checkpointing": kept} for batch in (4, 16, 1) for kept in (False, True)]
    precisions = [
        {"batch": 4, "gradient_checkpointing": kept, **precision}
        for precision in ({"quantization": "nf4"}, {"bf16": True})
        for kept in (False, True)
    ]
    hand = [{"batch": 16, "contender": "hand"}]
    return [{"model": model, **case} for model in models for case in hand + sizes + precisions]


def run(case: dict[str, Any], steps: int) -> dict[str, Any]:
    """One case in this process."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    batch = case["batch"]
    model = CausalLM(name=case["model"], quantization=case.get("quantization", "none"))
    trainer = Sft(
        batch_size=batch,
        accumulation=1,
        micro_batch=batch,
        epochs=1,
        max_steps=steps,
        bf16=case.get("bf16", False),
        gradient_checkpointing=case.get("gradient_checkpointing", False),
    )
    made = rows(batch * (steps + 1))
    data = Dataset(train=made[: batch * steps], validation=made[batch * steps :], fingerprint="flips")
    expected = trainer.estimate(model.skeleton(), Lora(), data)
    loaded = model.load()
    if case.get("contender") == "hand":
        measured = by_hand(trainer, loaded, data)
    else:
        with tempfile.TemporaryDirectory() as folder:
            job = TrainingJob(
                loaded=loaded, lora=Lora(), data=data, run=Silent(), output=Path(folder), reward=lambda *_: False
            )
            _, training = trainer.train(job)
        measured = training.peak_memory_bytes
    return {
        **case,
        "estimated_bytes": expected.memory_bytes,
        "measured_bytes": measured,
        "ratio": round(expected.memory_bytes / measured, 3),
        "steps": steps,
    }


def by_hand(trainer: Sft, loaded: LoadedModel, data: Dataset) -> int:
    """Peak bytes of a loop of a few lines."""
    import torch
    from peft import get_peft_model
    from torch.nn import functional

    model = get_peft_model(loaded.model, Lora().peft_config()).train()
    inner = model.get_base_model()
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-3)
    encoded = trainer.fitting(data.train, loaded.tokenizer, "training").sides[0]
    pad = loaded.tokenizer.pad_token_id
    memory.reset_peak(torch.device("cpu"))
    for first in range(0, len(encoded), trainer.batch_size):
        batch = encoded[first : first + trainer.batch_size]
        longest = max(len(row.input_ids) for row in batch)
        ids = torch.tensor([row.input_ids + [pad] * (longest - len(row.input_ids)) for row in batch])
        labels = torch.tensor([row.labels + [-100] * (longest - len(row.labels)) for row in batch])
        mask = torch.tensor([[column < len(row.input_ids) for column in range(longest)] for row in batch])
        hidden = inner.model(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state[:, :-1]
        scored = labels[:, 1:] != -100
        functional.cross_entropy(inner.lm_head(hidden[scored]), labels[:, 1:][scored]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return memory.peak(torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", action="append")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help="one case as JSON, run in this process")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run(json.loads(options.case), options.steps)))
        return
    results = []
    for case in cases(options.model or ["bundled:tiny"]):
        command = [sys.executable, __file__, "--steps", str(options.steps), "--case", json.dumps(case)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        results[-1]["model"] = Path(results[-1]["model"]).name
        print(results[-1], flush=True)
        if options.out:
            facts = describe("torch", "transformers", "trl", "peft", "bitsandbytes")
            options.out.write_text(json.dumps({**facts, "cases": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
