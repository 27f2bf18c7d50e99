"""Wall time of 16 trials of rank, alpha and learning rate: a shell loop of a TRL script, Hydra's own plugin, and ours.

    python benchmarks/sweep.py [--batches 1 4] [--contenders shell sequential packed pruned] [--shell-trials 16]
    python benchmarks/sweep.py --contenders shell hydra --hydra-python PYTHON

Every contender trains the same 16 points on the same rows of flips for one epoch on the bundled model, validates on the
same held-out rows and saves the adapter; ours also answer the held-out prompts, log to MLflow and rank the trials. They
run one after the other on the whole machine, from the first process to the last byte. The shell loop pays for a Python
with TRL in it 16 times, the others once; with fewer --shell-trials, an even choice is run and its time is scaled.
`pruned` is what `sweeps=rank_alpha_lr` does: packed, pruned by successive halving, places refilled. Processor time
beside wall time tells what a busy machine did to the latter. Afterwards each contender's best adapter is scored on the
held-out rows, with the standard error. Batches that an earlier call of the day measured stay in the file of --out.

--hydra-python is that of an environment with hydra-optuna-sweeper 1.3 (it needs optuna<3), TRL, PEFT and torch.
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
PRUNED = ("hydra/sweeper/pruner=asha", "trainer.eval_steps=0.125")


class Rows:
    """Rows of flips for every contender, and the model that all of them train."""

    def __init__(self, count: int, folder: Path) -> None:
        import loraloop
        from loraloop.dataset.builder import DatasetBuilder
        from loraloop.model.causal import CausalLM
        from loraloop.source.flips import Flips

        self.count, self.file = count, folder / "rows.json"
        self.model = Path(loraloop.__file__).parent / "model" / "assets" / "tiny"
        self.base = CausalLM(name="bundled:tiny", quantization="none", dtype="float32", device_map=None)
        self.source = Flips(runs=self.runs)
        self.data = DatasetBuilder().build(self.source.collect(None), self.base.skeleton().tokenizer)
        sides = {"train": self.data.train, "validation": self.data.validation}
        plain = {
            side: [{"prompt": row.prompt, "completion": row.completion} for row in rows] for side, rows in sides.items()
        }
        self.file.write_text(json.dumps(plain))

    @property
    def runs(self) -> int:
        """Runs of 32 rows, a fifth of which is held out."""
        return self.count // 32 * 5 // 4

    def score(self, adapter: Path) -> dict[str, float]:
        """Held-out loss and accuracy of an adapter, with standard errors."""
        from loraloop.evaluation.evaluation import Evaluation
        from loraloop.model import adapters

        loaded = self.base.load()
        with adapters.attached(loaded.model, adapter) as model:
            score = Evaluation(cache=None).score(model, loaded.tokenizer, self.data.validation, self.source.correct)
        names = ("loss", "task_accuracy")
        values = {name: round(score[name], 5) for name in names}
        return values | {f"{name}_se": round(score.errors[name], 5) for name in names}


def shell(rows: Rows, batch: int, trials: int, folder: Path) -> dict[str, Any]:
    chosen = POINTS[:: len(POINTS) // trials][:trials]
    losses, began = [], _spent()
    for number, (rank, ratio, rate) in enumerate(chosen):
        command = [sys.executable, HERE / "plain_trl.py", rows.file, rows.model, "--rank", rank, "--alpha"]
        command += [ratio * rank, "--learning-rate", rate, "--batch", batch, "--save", folder / str(number)]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        losses.append(float(re.findall(r"eval_loss (\S+)", done.stdout)[-1]))
    scale = len(POINTS) / trials
    spent = {name: round(scale * value, 1) for name, value in _since(began).items()}
    best = rows.score(folder / str(losses.index(min(losses))))
    return {**spent, "measured_trials": trials, "losses": losses, "best": best}


def hydra_plugin(python: str, rows: Rows, batch: int) -> dict[str, Any]:
    command = [python, HERE / "plain_hydra.py", "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid"]
    command += [f"hydra.sweeper.n_trials={len(POINTS)}", f"rows={rows.file}", f"model={rows.model}", f"batch={batch}"]
    command += _space({"rank": RANKS, "ratio": RATIOS, "learning_rate": RATES})
    with tempfile.TemporaryDirectory() as folder:
        began = _spent()
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, cwd=folder)
        spent = _since(began)
        best = re.findall(r"best_value: (\S+)", next(Path(folder).rglob("optimization_results.yaml")).read_text())
        assert done.returncode == 0
    return {**spent, "best": {"loss": round(float(best[0]), 5)}}


def _space(space: dict[str, tuple[float, ...]]) -> list[str]:
    return [f"{key}=choice({','.join(map(str, values))})" for key, values in space.items()]


def ours(rows: Rows, batch: int, *launcher: str) -> dict[str, Any]:
    command = [Path(sys.executable).with_name("loraloop"), "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid"]
    command += _space({"lora.r": RANKS, "lora.alpha_over_r": RATIOS, "trainer.learning_rate": RATES})
    command += [f"source.runs={rows.runs}", "trainer.epochs=1", "trainer.accumulation=1", *launcher]
    command += [f"trainer.batch_size={batch}", f"trainer.micro_batch={batch}", "hydra.sweeper.study_name=points"]
    with tempfile.TemporaryDirectory() as folder:
        began = _spent()
        subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, cwd=folder)
        spent = _since(began)
        return spent | _found(Path(folder), rows)


def _spent() -> tuple[float, float]:
    """Wall clock, and processor time of every process that ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), ended.ru_utime + ended.ru_stime


def _since(before: tuple[float, float]) -> dict[str, float]:
    wall, processor = (now - then for now, then in zip(_spent(), before, strict=True))
    return {"seconds": round(wall, 1), "processor_seconds": round(processor, 1)}


def _found(folder: Path, rows: Rows) -> dict[str, Any]:
    """Losses by point, the best adapter's score, peak memory of its run, and what pruning saved."""
    import optuna
    from mlflow import MlflowClient

    from loraloop.sweep.analysis import savings

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="points", storage=f"sqlite:///{folder}/mlruns/optuna.db")
    found = {tuple(trial.params.values()): trial for trial in study.trials}
    assert len(found) == len(POINTS)
    best = study.best_trial.user_attrs
    run = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db").get_run(best["run"])
    saved = savings(study)
    return {
        "losses": [found[point].value for point in POINTS],
        "best": rows.score(folder / best["folder"] / "adapter"),
        "peak_memory_mib": round(run.data.metrics["cost/peak_memory_bytes"] / 2**20),
        **({"share_of_steps_not_trained": round(saved.share, 3)} if saved else {}),
    }


def run(name: str, rows: Rows, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    how = ("hydra/launcher=packed", f"hydra.launcher.max_trials={arguments.places}")
    if name == "shell":
        with tempfile.TemporaryDirectory() as folder:
            return shell(rows, batch, arguments.shell_trials, Path(folder))
    if name == "hydra":
        return hydra_plugin(arguments.hydra_python, rows, batch)
    return ours(rows, batch, *{"sequential": (), "packed": how, "pruned": (*how, *PRUNED)}[name])


def measure(rows: Rows, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    done: dict[str, dict[str, Any]] = {}
    for name in arguments.contenders:
        each = done[name] = run(name, rows, batch, arguments)
        slowest = next(iter(done.values()))
        each["speedup"] = round(slowest["seconds"] / each["seconds"], 2)
        each["speedup_in_processor_time"] = round(slowest["processor_seconds"] / each["processor_seconds"], 2)
        shown = {key: value for key, value in each.items() if key not in ("losses", "seconds", "speedup")}
        print(f"batch {batch}  {name:<10} {each['seconds']:8.1f} s  {each['speedup']:.2f}x  {shown}", flush=True)
    _compare([each["losses"] for name, each in done.items() if name in ("sequential", "packed", "pruned")], done)
    return done


def _compare(losses: list[list[float | None]], done: dict[str, Any]) -> None:
    """The largest difference between what our contenders made of one point."""
    points = [[loss for loss in point if loss is not None] for point in zip(*losses, strict=True)]
    gaps = [max(point) - min(point) for point in points if len(point) > 1]
    if gaps:
        done["largest_loss_difference_between_ours"] = max(gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--contenders", nargs="+", default=["shell", "sequential", "packed", "pruned"])
    parser.add_argument("--places", type=int, default=8, help="trials of a pack")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--shell-trials", type=int, default=len(POINTS))
    parser.add_argument("--hydra-python", help="for the contender hydra")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sweep.json")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    before = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report = {
        **describe("torch", "transformers", "trl", "peft", "optuna", "hydra-core", "mlflow"),
        "rows": arguments.rows,
        "trials": len(POINTS),
        "places": arguments.places,
    }
    same = before.get("date") == report["date"] and before["rows"] == arguments.rows
    report["batches"] = before["batches"] if same else {}
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows(arguments.rows, Path(folder))
        for batch in arguments.batches:
            report["batches"][str(batch)] = measure(rows, batch, arguments)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
