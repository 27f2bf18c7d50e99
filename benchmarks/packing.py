"""Training speed of adapters packed on one base against the same adapters one after the other with TRL.

    python benchmarks/packing.py [--packs 8 16] [--batches 1 4] [--lengths 256 512] [--steps 10] [--out FILE]

On a machine with a GPU the base has the architecture of Llama-2-7B with random weights in NF4; without one it is the
bundled model in fp32. Ranks 8, 16 and 64 take turns. Rows are random tokens of one length, so that no padding helps
either side, and the loss falls on all of them. Tokens per second are those of all adapters over the time of their steps
(the first two, which warm up, are left out). TRL's adapters have the ranks of the pack, one after the other, and the
first and the last loss of both are compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import describe

from loraloop.lora import Lora
from loraloop.model.causal import CausalLM
from loraloop.records import Dataset, Example, LoadedModel, Provenance, Row
from loraloop.tracker.none import NoRun
from loraloop.trainer.pack import PackedTrial, train
from loraloop.trainer.sft import Sft

RANKS = (8, 16, 64)
WARM = 2
LLAMA = {
    "model_type": "llama", "vocab_size": 259, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
}  # fmt: skip
"""Llama-2-7B with the bundled tokenizer's vocabulary: the rows need no download."""


class Clock(NoRun):
    """A run that keeps each step's loss and when it was logged."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def metrics(self, values: Any, step: int = 0) -> None:
        """Keep a training step."""
        if "train/loss" in values:
            self.times.append(time.perf_counter())
            self.losses.append(values["train/loss"])

    @property
    def seconds(self) -> float:
        """Of the steps after the warm-up."""
        return self.times[-1] - self.times[WARM - 1]


def base() -> LoadedModel:
    tiny = CausalLM(name="bundled:tiny").load()
    if not torch.cuda.is_available():
        return tiny
    large = CausalLM(
        name="llama-7b",
        weights="random",
        architecture=LLAMA,
        quantization="nf4",
        double_quantization=True,
        dtype="bfloat16",
    ).load()
    return LoadedModel(large.model, tiny.tokenizer, large.base)


def rows(length: int, count: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(97, 123, (count, length - 2), generator=generator)  # one byte is one token
    made = [bytes(text.tolist()).decode() for text in texts]
    example = Example.one_turn(input="", output="", provenance=Provenance(source="random"))
    return Dataset(train=tuple(Row("", text, example) for text in made), validation=(), fingerprint="random")


def settings(batch: int, length: int, steps: int) -> Sft:
    return Sft(
        epochs=1, batch_size=batch, accumulation=1, micro_batch=batch, learning_rate=2e-4, max_length=length,
        max_steps=steps, log_steps=1, eval_steps=10**6, save_steps=10**6, gradient_checkpointing=False,
    )  # fmt: skip


def packed(loaded: LoadedModel, data: Dataset, trainer: Sft, size: int, folder: Path) -> list[Clock]:
    clocks = [Clock() for _ in range(size)]
    members = [
        PackedTrial(settings=trainer, lora=_lora(place), run=clock, output=folder / str(place))
        for place, clock in enumerate(clocks)
    ]
    for result in train(loaded, members, data):
        if isinstance(result, Exception):
            raise result
    return clocks


def sequential(loaded: LoadedModel, data: Dataset, trainer: Sft, place: int, folder: Path) -> Clock:
    """One adapter by TRL's own loop and loss, on the same rows in the same order."""
    from datasets import Dataset as Columns
    from transformers import PrinterCallback, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from loraloop.model.adapters import detach
    from loraloop.trainer.choices import choose
    from loraloop.trainer.fit import arguments
    from loraloop.trainer.sampler import LengthGrouped

    clock = Clock()

    class Told(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                clock.metrics({"train/loss": float(logs["loss"])})

    class Ordered(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
            return LengthGrouped(
                [len(ids) for ids in self.train_dataset["input_ids"]], trainer.rows_per_step, trainer.seed
            )

    encoded = trainer.fitting(data.train, loaded.tokenizer, "training").sides[0]
    choices = choose(trainer, loaded.model, [len(row.input_ids) for row in encoded])
    common = arguments(trainer, choices, loaded.model, folder, validates=False) | {"save_strategy": "no"}
    stock = Ordered(
        model=loaded.model,
        args=SFTConfig(packing=False, dataset_kwargs={"skip_prepare_dataset": True}, **common),
        train_dataset=Columns.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in encoded]),
        processing_class=loaded.tokenizer,
        peft_config=_lora(place).peft_config(),
        callbacks=[Told()],
    )
    stock.remove_callback(PrinterCallback)
    stock.train()
    detach(loaded.model)
    return clock


def _lora(place: int) -> Lora:
    return Lora(r=RANKS[place % len(RANKS)], dropout=0.0)


def measure(loaded: LoadedModel, batch: int, length: int, steps: int, packs: list[int]) -> dict[str, Any]:
    data, trainer = rows(length, batch * steps), settings(batch, length, steps)
    tokens = batch * length * (steps - WARM)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        _reset()
        solos = [
            sequential(loaded, data, trainer, place, Path(scratch) / f"solo{place}") for place in range(len(RANKS))
        ]
        alone = sum(tokens / solo.seconds for solo in solos) / len(solos)
        report["TRL, one by one"] = {"tokens_per_second": round(alone), "peak_gib": _peak()}
        for size in packs:
            _reset()
            clocks = packed(loaded, data, trainer, size, Path(scratch) / f"pack{size}")
            speed = size * tokens / clocks[0].seconds
            gaps = [
                abs(a - b) for c, s in zip(clocks, solos, strict=False) for a, b in zip(c.losses, s.losses, strict=True)
            ]
            report[f"packed {size}"] = {
                "tokens_per_second": round(speed),
                "speedup": round(speed / alone, 2),
                "largest_loss_difference": max(gaps),
                "peak_gib": _peak(),
            }
    for name, figures in report.items():
        print(f"batch {batch} x {length}  {name:<16} {figures}", flush=True)
    return report


def _reset() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> float | None:
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "packing.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    loaded = base()
    report: dict[str, Any] = {
        **describe("torch", "transformers", "trl", "peft", "bitsandbytes"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": arguments.threads,
        "base": loaded.base.name,
        "quantization": loaded.base.quantization,
        "steps": arguments.steps,
    }
    report["shapes"] = {
        f"{batch} x {length}": measure(loaded, batch, length, arguments.steps, arguments.packs)
        for batch in arguments.batches
        for length in arguments.lengths
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
