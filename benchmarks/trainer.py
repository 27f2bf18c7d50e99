"""Training speed and loss of a hand-written loop, TRL as it comes, and loraloop's trainer, on the same batches.

    python benchmarks/trainer.py [--steps 30] [--repetitions 7] [--threads 2] [--out benchmarks/results/trainer.json]

A 0.9M-parameter byte-level Llama with random weights, LoRA r16 on q, k, v, o, rows of about 82 tokens, 16 rows per
optimizer step. Contenders take turns, so that a noisy machine treats them alike; medians are compared. Useful tokens
are those of the rows, padding excluded. Each contender's loss at every step is compared with the hand loop's (dropout
is 0 here, since contenders draw its mask in different shapes).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, logging
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from loraloop.records import Example, Provenance, Row
from loraloop.trainer.encode import encode
from loraloop.trainer.loop import sft_trainer
from loraloop.trainer.sampler import LengthGrouped

ROWS_PER_STEP = 16
WARM = 3
LEARNING_RATE = 2e-3
TEMPLATE = "{instruction}\n{input}\n> "
BOS, EOS, PAD = 256, 257, 258


class Bytes:
    """The smallest tokenizer that can be asked for bytes."""

    eos_token = "\0"

    def __call__(self, text: list[str]) -> dict[str, list[list[int]]]:
        """Bytes of each text after the first token."""
        return {"input_ids": [[BOS, *(EOS if byte == 0 else byte for byte in line.encode())] for line in text]}


def rows(count: int) -> list[Row]:
    rng = np.random.default_rng(0)
    made = []
    for flips in rng.choice(list("HT"), size=(count, 32)):
        line = "".join(flips)
        prompt = TEMPLATE.format(instruction="Count the heads and tails.", input=line)
        answer = f"{line.count('H')} heads, {line.count('T')} tails"
        made.append(
            Row(prompt, answer, Example.one_turn(input=line, output=answer, provenance=Provenance(source="flips")))
        )
    return made


def base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=259,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )


def lora() -> LoraConfig:
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    return LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules=targets)


class Clock(TrainerCallback):
    """Losses of every step, and the wall and processor time of the steps after the first few."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.wall = self.cpu = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A trainer's step ended."""
        self.tick(state.global_step, args.max_steps)

    def tick(self, step: int, last: int) -> None:
        """Start after the warm-up steps, stop after the last."""
        if step == WARM:
            self.wall, self.cpu = time.perf_counter(), time.process_time()
        if step == last:
            self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the step's loss."""
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def hand(data: list[dict[str, list[int]]], steps: int, micro: int) -> Clock:
    """Forward, backward, clip, AdamW and a linear schedule, as anyone would write it."""
    model = base()
    torch.manual_seed(0)
    model = get_peft_model(model, lora())
    model.train()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    collate = DataCollatorForLanguageModeling(pad_token_id=PAD)
    order = list(LengthGrouped([len(row["input_ids"]) for row in data], ROWS_PER_STEP, 0))
    clock = Clock()
    for step in range(steps):
        chosen = [data[index] for index in order[step * ROWS_PER_STEP : (step + 1) * ROWS_PER_STEP]]
        batches = [collate(chosen[start : start + micro]) for start in range(0, ROWS_PER_STEP, micro)]
        count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            labels = batch.pop("labels")[:, 1:]
            logits = model(**batch, use_cache=False).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="sum"
            )
            (loss / count).backward()
            total += loss.item() / count
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        clock.losses.append(total)
        clock.tick(step + 1, steps)
    return clock


class Stock(SFTTrainer):
    """TRL as it comes, on the same batches."""

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        return LengthGrouped([len(ids) for ids in self.train_dataset["input_ids"]], ROWS_PER_STEP, 0)


def trl(cls: type[Any], data: list[dict[str, list[int]]], steps: int, micro: int, tokenizer: Any) -> Clock:
    from datasets import Dataset

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = cls(
            model=base(),
            args=SFTConfig(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=micro,
                gradient_accumulation_steps=ROWS_PER_STEP // micro,
                learning_rate=LEARNING_RATE,
                gradient_checkpointing=False,
                bf16=False,
                logging_steps=1,
                save_strategy="no",
                disable_tqdm=True,
                report_to="none",
                seed=0,
                use_cpu=True,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer,
            peft_config=lora(),
            callbacks=[clock],
        )
        trainer.lengths = [len(row["input_ids"]) for row in data]
        trainer.callback_handler.callbacks = [c for c in trainer.callback_handler.callbacks if "Printer" not in str(c)]
        trainer.train()
    return clock


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    vocabulary = {**{chr(256 + byte): byte for byte in range(256)}, "<bos>": BOS, "<eos>": EOS, "<pad>": PAD}
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE(vocab=vocabulary, merges=[])), **special)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trainer.json")
    options = parser.parse_args()
    where = describe("torch", "transformers", "trl", "peft", "accelerate")
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    encoded = encode(rows(options.steps * ROWS_PER_STEP), Bytes(), 512)  # type: ignore[arg-type]
    data = [{"input_ids": row.input_ids, "labels": row.labels} for row in encoded]
    useful = sum(len(row["input_ids"]) for row in data) / options.steps * (options.steps - WARM)
    fast, words = sft_trainer(), tokenizer()
    contenders = {
        "hand loop 4 x 4": lambda: hand(data, options.steps, 4),
        "TRL 4 x 4": lambda: trl(Stock, data, options.steps, 4, words),
        "loraloop 4 x 4": lambda: trl(fast, data, options.steps, 4, words),
        "hand loop 16 x 1": lambda: hand(data, options.steps, 16),
        "TRL 16 x 1": lambda: trl(Stock, data, options.steps, 16, words),
        "loraloop 16 x 1": lambda: trl(fast, data, options.steps, 16, words),
    }
    clocks: dict[str, list[Clock]] = {name: [] for name in contenders}
    for _ in range(options.repetitions):
        for name, run in contenders.items():
            clocks[name].append(run())
    reference = clocks["hand loop 4 x 4"][0].losses
    table = {}
    for name, all_ in clocks.items():
        same = name.split(" ")[-3:]
        hands = clocks[" ".join(["hand loop", *same])]
        table[name] = {
            "tokens_per_second": round(statistics.median(useful / clock.wall for clock in all_)),
            "of_hand_loop": round(statistics.median(h.wall / c.wall for h, c in zip(hands, all_, strict=True)), 3),
            "of_hand_loop_cpu": round(statistics.median(h.cpu / c.cpu for h, c in zip(hands, all_, strict=True)), 3),
            "largest_loss_difference": max(abs(a - b) for a, b in zip(reference, all_[0].losses, strict=True)),
        }
        print(f"{name:18}", *(f"{key} {value:.6g}" for key, value in table[name].items()), sep="  ")
    settings = {"steps": options.steps, "repetitions": options.repetitions, "threads": options.threads}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {**where, **settings}
    options.out.write_text(json.dumps({**report, "contenders": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
