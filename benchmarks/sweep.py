"""Wall time of 16 trials of rank, alpha and learning rate: a shell loop of a TRL script, our sweeper, and packed.

    python benchmarks/sweep.py [--batches 1 4] [--rows 256] [--packs 4 8 16] [--out benchmarks/results/sweep.json]

Every contender trains the same 16 points on the same rows of flips for one epoch on the bundled model, validates on the
same held-out rows and saves the adapter; ours also answer the held-out prompts, log to MLflow and rank the trials. They
run one after the other on the whole machine, from the first process to the last byte. The shell loop pays for a Python
with TRL in it 16 times, ours once. Processor time beside wall time tells what a busy machine did to the latter.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe

HERE = Path(__file__).parent
RANKS, RATIOS, RATES = (4, 8, 16, 32), (1, 2), (1e-3, 5e-3)
POINTS = list(itertools.product(RANKS, RATIOS, RATES))


def rows(count: int, folder: Path) -> tuple[Path, Path]:
    """``count`` rows of flips to train on and a quarter of that held out, as a file; and the model's folder."""
    import loraloop
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.model.causal import CausalLM
    from loraloop.source.flips import Flips

    skeleton = CausalLM(name="bundled:tiny", quantization="none", dtype="float32", device_map=None).skeleton()
    data = DatasetBuilder().build(Flips(runs=count // 32 * 5 // 4).collect(None), skeleton.tokenizer)
    sides = {"train": data.train, "validation": data.validation}
    file = folder / "rows.json"
    plain = {
        side: [{"prompt": row.prompt, "completion": row.completion} for row in rows] for side, rows in sides.items()
    }
    file.write_text(json.dumps(plain))
    return file, Path(loraloop.__file__).parent / "model" / "assets" / "tiny"


def shell(file: Path, model: Path, batch: int) -> dict[str, Any]:
    losses, began = [], _spent()
    for rank, ratio, rate in POINTS:
        command = [sys.executable, HERE / "plain_trl.py", file, model, "--rank", rank, "--alpha", ratio * rank]
        command += ["--learning-rate", rate, "--batch", batch]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        losses.append(float(re.findall(r"eval_loss (\S+)", done.stdout)[-1]))
    return {**_since(began), "losses": losses}


def ours(count: int, batch: int, *launcher: str) -> dict[str, Any]:
    space = {"lora.r": RANKS, "lora.alpha_over_r": RATIOS, "trainer.learning_rate": RATES}
    command = [Path(sys.executable).with_name("loraloop"), "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid"]
    command += [f"{key}=choice({','.join(map(str, values))})" for key, values in space.items()]
    command += [f"source.runs={count // 32 * 5 // 4}", "trainer.epochs=1", "trainer.accumulation=1", *launcher]
    command += [f"trainer.batch_size={batch}", f"trainer.micro_batch={batch}", "hydra.sweeper.study_name=points"]
    with tempfile.TemporaryDirectory() as folder:
        began = _spent()
        subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, cwd=folder)
        return {**_since(began), "losses": _losses(folder)}


def _spent() -> tuple[float, float]:
    """Wall clock, and processor time of every process that ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), ended.ru_utime + ended.ru_stime


def _since(before: tuple[float, float]) -> dict[str, float]:
    wall, processor = (now - then for now, then in zip(_spent(), before, strict=True))
    return {"seconds": round(wall, 1), "processor_seconds": round(processor, 1)}


def _losses(folder: str) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="points", storage=f"sqlite:///{folder}/mlruns/optuna.db")
    found = {tuple(trial.params.values()): trial for trial in study.trials}
    assert len(found) == len(POINTS)
    return [found[point].value for point in POINTS]


def measure(file: Path, model: Path, count: int, batch: int, packs: list[int]) -> dict[str, Any]:
    contenders: dict[str, dict[str, Any]] = {
        "shell loop of TRL": shell(file, model, batch),
        "sequential": ours(count, batch),
    }
    for size in packs:
        contenders[f"packed {size}"] = ours(count, batch, "hydra/launcher=packed", f"hydra.launcher.max_trials={size}")
    slowest, alone = contenders["shell loop of TRL"], contenders["sequential"]["losses"]
    for name, each in contenders.items():
        each["speedup"] = round(slowest["seconds"] / each["seconds"], 2)
        each["speedup_in_processor_time"] = round(slowest["processor_seconds"] / each["processor_seconds"], 2)
        if name.startswith("packed"):
            gaps = [abs(one - other) for one, other in zip(each["losses"], alone, strict=True)]
            each["largest_loss_difference_to_sequential"] = max(gaps)
        each["losses"] = [round(loss, 5) for loss in each["losses"]]
        print(f"batch {batch}  {name:<18} {each['seconds']:8.1f} s  {each['speedup']:.2f}x", flush=True)
    return contenders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--packs", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sweep.json")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    report = {
        **describe("torch", "transformers", "trl", "peft", "optuna", "hydra-core", "mlflow"),
        "rows": arguments.rows,
        "trials": len(POINTS),
    }
    with tempfile.TemporaryDirectory() as folder:
        file, model = rows(arguments.rows, Path(folder))
        report["batches"] = {
            str(batch): measure(file, model, arguments.rows, batch, arguments.packs) for batch in arguments.batches
        }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
