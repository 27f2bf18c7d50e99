"""Speed and memory of training SmolLM2-135M: a hand-written loop, loraloop and TRL as it comes, on the same batches.

    python benchmarks/real_model.py --rows banking77_train.csv [--model FOLDER] [--count 160] [--rounds 2]

A CSV file with the columns ``text`` and ``category`` (Banking77) is read where it is. LoRA r16 on q, k, v, o, 16 rows a
step in one pass, fp32, without dropout. Every contender trains in a process of its own, one after the other, and prints
one line. Tokens are those of the rows, padding excluded; the first step is not timed. Compare them within one round on
an idle machine alone: others' work slows them unevenly. The peak is the process's resident memory while it trains.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM = 1
SIZE = 16
LEARNING_RATE = 1e-3
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
PROMPT = "Which intent has this question of a bank's customer?\n{text}\nIntent: "


def rows(options: argparse.Namespace) -> list[Any]:
    """The first of every few rows of the file, so that all intents occur."""
    from loraloop.records import Example, Provenance, Row

    with options.rows.open(encoding="utf8", newline="") as stream:
        found = list(csv.DictReader(stream))
    chosen = found[:: len(found) // options.count][: options.count]
    made = []
    for each in chosen:
        example = Example.one_turn(input=each["text"], output=each["category"], provenance=Provenance(source="csv"))
        made.append(Row(PROMPT.format(text=each["text"]), each["category"], example))
    return made


def loaded(options: argparse.Namespace) -> Any:
    """The base, its tokenizer and its identity."""
    from loraloop.model.causal import CausalLM

    return CausalLM(name=options.model).load()


class Clock:
    """Wall time of the steps after the first, and the losses."""

    def __init__(self, steps: int) -> None:
        self.steps, self.seconds, self.cpu = steps, 0.0, 0.0
        self.losses: list[float] = []

    def tick(self, step: int) -> None:
        """A step ended."""
        if step in {WARM, self.steps}:
            self.seconds, self.cpu = time.perf_counter() - self.seconds, time.process_time() - self.cpu


def hand(options: argparse.Namespace) -> Clock:
    """Forward, backward, clip, AdamW and a linear schedule; the head sees the scored positions alone."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn import functional

    from loraloop.trainer import memory
    from loraloop.trainer.encode import encode
    from loraloop.trainer.sampler import LengthGrouped

    base = loaded(options)
    data = encode(tuple(rows(options)), base.tokenizer)
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules=list(TARGETS))
    model: Any = get_peft_model(base.model, config)
    model.train()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    steps = len(data) // SIZE
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    order = list(LengthGrouped([len(row.input_ids) for row in data], SIZE, 0))
    clock = Clock(steps)
    memory.reset_peak(torch.device("cpu"))
    for step in range(steps):
        chosen = [data[index] for index in order[step * SIZE : (step + 1) * SIZE]]
        width = max(len(row.input_ids) for row in chosen)
        pad = base.tokenizer.pad_token_id
        ids = torch.tensor([row.input_ids + [pad] * (width - len(row.input_ids)) for row in chosen])
        mask = torch.tensor([[1] * len(r.input_ids) + [0] * (width - len(r.input_ids)) for r in chosen])
        labels = torch.tensor([row.labels[1:] + [-100] * (1 + width - len(row.labels)) for row in chosen])
        inner = model.base_model.model
        hidden = inner.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        at = labels != -100
        loss = functional.cross_entropy(inner.lm_head(hidden[at]), labels[at])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        clock.losses.append(loss.item())
        clock.tick(step + 1)
    return clock


class Silent:
    """A run that keeps the losses of its steps."""

    id = link = None

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Note a step's loss and the time."""
        if "train/loss" in values:
            self.clock.losses.append(values["train/loss"])
            self.clock.tick(step)

    def params(self, values: Any) -> None:
        """Parameters are not kept."""


def ours(options: argparse.Namespace) -> Clock:
    """The trainer of loraloop, as an experiment calls it."""
    from loraloop.lora import Lora
    from loraloop.protocols import TrainingJob
    from loraloop.records import Dataset
    from loraloop.trainer.sft import Sft

    data = tuple(rows(options))
    held = data[: options.validation]
    clock = Clock(len(data) // SIZE)
    settings = Sft(
        epochs=1, batch_size=SIZE, micro_batch=SIZE, accumulation=1, learning_rate=LEARNING_RATE, weight_decay=0.0,
        warmup=0.0, schedule="linear", log_steps=1, bf16=False,
    )  # fmt: skip
    lora = Lora(r=16, targets=TARGETS, dropout=0.0)
    base = loaded(options)
    dataset = Dataset(train=data, validation=held, fingerprint="banking")
    estimate = settings.estimate(base, lora, dataset)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            loaded=base, lora=lora, data=dataset, run=Silent(clock), output=Path(folder), reward=lambda *_: False
        )
        _, training = settings.train(job)
    clock.estimate = estimate.memory_bytes  # type: ignore[attr-defined]
    clock.peak = training.peak_memory_bytes  # type: ignore[attr-defined]
    return clock


def trl(options: argparse.Namespace) -> Clock:
    """TRL's SFTTrainer as it comes, on the same batches."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from loraloop.trainer import memory
    from loraloop.trainer.encode import encode
    from loraloop.trainer.sampler import LengthGrouped

    base = loaded(options)
    data = encode(tuple(rows(options)), base.tokenizer)
    clock = Clock(len(data) // SIZE)

    class Stock(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
            return LengthGrouped([len(row.input_ids) for row in data], SIZE, 0)

    class Ticks(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                clock.losses.append(float(logs["loss"]))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.tick(state.global_step)

    with tempfile.TemporaryDirectory() as folder:
        trainer = Stock(
            model=base.model,
            args=SFTConfig(
                output_dir=folder, num_train_epochs=1, per_device_train_batch_size=SIZE, learning_rate=LEARNING_RATE,
                gradient_checkpointing=False, bf16=False, logging_steps=1, save_strategy="no", disable_tqdm=True,
                report_to="none", seed=0, use_cpu=True, dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=Dataset.from_list([{"input_ids": r.input_ids, "labels": r.labels} for r in data]),
            processing_class=base.tokenizer,
            peft_config=LoraConfig(
                task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules=list(TARGETS)
            ),
            callbacks=[Ticks()],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        memory.reset_peak(torch.device("cpu"))
        trainer.train()
    return clock


CONTENDERS = {"hand loop": hand, "loraloop": ours, "TRL": trl}


def child(options: argparse.Namespace) -> None:
    """Train as one contender, and print what it took."""
    import torch
    from transformers import logging

    from loraloop.trainer import memory
    from loraloop.trainer.encode import encode

    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    clock = CONTENDERS[options.contender](options)
    peak = getattr(clock, "peak", None) or memory.peak(torch.device("cpu"))
    from transformers import AutoTokenizer

    encoded = encode(tuple(rows(options)), AutoTokenizer.from_pretrained(options.model))
    per_step = sum(len(row.input_ids) for row in encoded) / (len(encoded) // SIZE)
    print(
        json.dumps(
            {
                "tokens_per_second": per_step * (clock.steps - WARM) / clock.seconds,
                "cpu_seconds": clock.cpu,
                "peak_gib": peak / 2**30,
                "estimate_gib": getattr(clock, "estimate", 0) / 2**30,
                "losses": clock.losses,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--validation", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contender")
    options = parser.parse_args()
    if options.contender:
        child(options)
        return
    for _ in range(options.rounds):
        for name in CONTENDERS:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--contender", name], capture_output=True, text=True
            )
            print(name, done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr, flush=True)


if __name__ == "__main__":
    main()
