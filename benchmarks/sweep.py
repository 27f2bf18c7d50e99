"""Wall time of 16 trials of rank, alpha and learning rate: a shell loop of a TRL script, Hydra's own plugin, and ours.

    python benchmarks/sweep.py --case tiny-1 --contenders shell sequential packed pruned
    python benchmarks/sweep.py --case smollm2 --smollm2 FOLDER --contenders shell --shell-trials 4
    python benchmarks/sweep.py --case tiny-4 --contenders hydra --hydra-python PYTHON

Every contender trains the same 16 points on the same rows of flips for one epoch on the same base, validates on the
same held-out rows and saves the adapter; ours also answer the held-out prompts, log to MLflow and rank the trials. They
run one after the other on the whole machine, from the first process to the last byte. The shell loop pays for a Python
with TRL in it 16 times, the others once. With --shell-trials 4 it runs points 0, 5, 10 and 15 of the 16, in which each
rank is there once and each ratio and rate twice, and its time is scaled by four; its best is then one of these four.

`sequential` trains one trial after the other, `packed` several at once, and `pruned` is what `sweeps=rank_alpha_lr`
does: packed, pruned by successive halving, places refilled. Each waits for its threads as it does by itself; where
a machine is busy, OMP_WAIT_POLICY=PASSIVE keeps TRL's from spinning. Processor time beside wall time tells what a busy
machine did to it; peak memory is that of the largest process. Each contender's best adapter by validation loss is
scored on the held-out rows, with the standard error. Losses of ours are compared where a trial was trained to its end
in both.

A call measures the contenders that it names and leaves what the file of --out has of others, so that one machine may
measure them one at a time; each says when, and how busy the machine was.

--hydra-python is that of an environment with hydra-optuna-sweeper 1.3 (hydra-core 1.3, optuna<3), TRL, PEFT and torch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import describe

HERE = Path(__file__).parent
RANKS, RATIOS, RATES = (4, 8, 16, 32), (1, 2), (1e-3, 5e-3)
POINTS = list(itertools.product(RANKS, RATIOS, RATES))
STRIDE = {16: 1, 4: 5}
"""Steps between the points of a shell loop of so many trials; 5 makes an even choice of the four."""
PRUNED = ("hydra/sweeper/pruner=asha", "trainer.eval_steps=0.125", "trainer.eval_growth=2")
OURS = {"sequential": False, "packed": True, "pruned": True}


@dataclass(frozen=True)
class Case:
    """What is trained: ``runs`` of 32 rows of flips, a fifth of which is held out, on a base, ``batch`` rows a step."""

    batch: int
    runs: int
    real: bool = False


CASES = {"tiny-1": Case(1, 5), "tiny-4": Case(4, 5), "smollm2": Case(4, 2, real=True)}


class Rows:
    """Rows of flips for every contender, and the model that all of them train."""

    def __init__(self, case: Case, smollm2: Path | None, folder: Path) -> None:
        import loraloop
        from loraloop.dataset.builder import DatasetBuilder
        from loraloop.model.causal import CausalLM
        from loraloop.source.flips import Flips

        if case.real and smollm2 is None:
            sys.exit("--case smollm2 needs --smollm2 FOLDER, which save_pretrained wrote")
        tiny = Path(loraloop.__file__).parent / "model" / "assets" / "tiny"
        self.model = smollm2.absolute() if case.real and smollm2 else tiny
        self.case, self.file = case, folder / "rows.json"
        self.base = CausalLM(name=str(self.model), quantization="none", dtype="float32", device_map=None)
        self.source = Flips(runs=case.runs)
        self.data = DatasetBuilder().build(self.source.collect(None), self.base.skeleton().tokenizer)
        sides = {"train": self.data.train, "validation": self.data.validation}
        plain = {
            side: [{"prompt": row.prompt, "completion": row.completion} for row in rows] for side, rows in sides.items()
        }
        self.file.write_text(json.dumps(plain))

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


class Spent:
    """What commands took: seconds on the clock and of the processor, and the memory of the largest process."""

    def __init__(self) -> None:
        self.seconds = self.processor = 0.0
        self.peak = 0

    def run(self, command: Sequence[Any], folder: Path) -> str:
        """Run a command in a folder and return what it printed."""
        began = time.perf_counter()
        with tempfile.TemporaryFile("w+") as output:
            child = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output, cwd=folder)
            _, status, usage = os.wait4(child.pid, 0)
            output.seek(0)
            printed = output.read()
        if status:
            sys.exit(
                f"{' '.join(map(str, command))} ended with {os.waitstatus_to_exitcode(status)}:\n{printed[-3000:]}"
            )
        self.seconds += time.perf_counter() - began
        self.processor += usage.ru_utime + usage.ru_stime
        self.peak = max(self.peak, usage.ru_maxrss)
        return printed

    def report(self, scale: float = 1.0) -> dict[str, float]:
        """What was spent, times ``scale``; the memory is not scaled."""
        return {
            "seconds": round(scale * self.seconds, 1),
            "processor_seconds": round(scale * self.processor, 1),
            "peak_memory_mib": round(self.peak / 2**10),
        }


def shell(rows: Rows, trials: int, folder: Path) -> dict[str, Any]:
    losses, spent = [], Spent()
    for number, (rank, ratio, rate) in enumerate(POINTS[:: STRIDE[trials]]):
        command = [sys.executable, HERE / "plain_trl.py", rows.file, rows.model, "--rank", rank, "--alpha"]
        command += [ratio * rank, "--learning-rate", rate, "--batch", rows.case.batch, "--save", folder / str(number)]
        losses.append(float(re.findall(r"eval_loss (\S+)", spent.run(command, folder))[-1]))
    best = rows.score(folder / str(losses.index(min(losses))))
    return {**spent.report(len(POINTS) / trials), "measured_trials": trials, "losses": losses, "best": best}


def hydra_plugin(python: str, rows: Rows, folder: Path) -> dict[str, Any]:
    command = [python, HERE / "plain_hydra.py", "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid"]
    command += [f"hydra.sweeper.n_trials={len(POINTS)}", f"rows={rows.file}", f"model={rows.model}"]
    command += [f"batch={rows.case.batch}", *_space({"rank": RANKS, "ratio": RATIOS, "learning_rate": RATES})]
    spent = Spent()
    spent.run(command, folder)
    losses = {file.parent: float(file.read_text()) for file in folder.rglob("loss")}
    assert len(losses) == len(POINTS)
    best = min(losses, key=lambda each: losses[each])
    return {**spent.report(), "losses": sorted(losses.values()), "best": rows.score(best)}


def _space(space: dict[str, tuple[float, ...]]) -> list[str]:
    return [f"{key}=choice({','.join(map(str, values))})" for key, values in space.items()]


def ours(rows: Rows, folder: Path, *launcher: str) -> dict[str, Any]:
    batch = rows.case.batch
    command = [Path(sys.executable).with_name("loraloop"), "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid"]
    command += _space({"lora.r": RANKS, "lora.alpha_over_r": RATIOS, "trainer.learning_rate": RATES})
    command += [f"source.runs={rows.case.runs}", f"model.name={rows.model}", "trainer.epochs=1", *launcher]
    command += [f"trainer.batch_size={batch}", f"trainer.micro_batch={batch}", "trainer.accumulation=1"]
    spent = Spent()
    spent.run([*command, "hydra.sweeper.study_name=points"], folder)
    return spent.report() | _found(folder, rows)


def _found(folder: Path, rows: Rows) -> dict[str, Any]:
    """Losses by point, ``None`` where a trial was ended early, the best adapter's score, and what pruning saved."""
    import optuna
    from optuna.trial import TrialState

    from loraloop.sweep.analysis import savings

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="points", storage=f"sqlite:///{folder}/mlruns/optuna.db")
    found = {tuple(trial.params.values()): trial for trial in study.trials}
    assert len(found) == len(POINTS)
    whole = [found[point].state == TrialState.COMPLETE for point in POINTS]
    saved = savings(study)
    return {
        "complete_trials": sum(whole),
        "losses": [found[point].value if each else None for point, each in zip(POINTS, whole, strict=True)],
        "best": rows.score(folder / study.best_trial.user_attrs["folder"] / "adapter"),
        **({"share_of_samples_not_trained": round(saved.share, 3)} if saved else {}),
    }


def run(name: str, rows: Rows, arguments: argparse.Namespace) -> dict[str, Any]:
    machine = describe()
    when = {"date": machine["date"], "load_average": machine["load_average"]}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if name == "shell":
            return when | shell(rows, arguments.shell_trials, folder)
        if name == "hydra":
            return when | hydra_plugin(arguments.hydra_python, rows, folder)
        how = ("hydra/launcher=packed", f"hydra.launcher.max_trials={arguments.places}") if OURS[name] else ()
        return when | ours(rows, folder, *how, *(PRUNED if name == "pruned" else ()))


def compare(contenders: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Speed-ups against the shell loop, and the largest difference between losses of trials that ours trained whole."""
    compared: dict[str, Any] = {}
    if slowest := contenders.get("shell"):
        for key in ("seconds", "processor_seconds"):
            compared[f"speedup_in_{key}"] = {
                name: round(slowest[key] / each[key], 2) for name, each in contenders.items()
            }
    losses = [each["losses"] for name, each in contenders.items() if name in OURS]
    gaps = [max(point) - min(point) for point in zip(*losses, strict=True) if None not in point]
    if len(losses) > 1 and gaps:
        compared |= {"largest_loss_difference_between_ours": max(gaps), "compared_trials": len(gaps)}
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--contenders", nargs="+", default=["shell", *OURS], choices=["shell", "hydra", *OURS])
    parser.add_argument("--places", type=int, default=8, help="trials of a pack")
    parser.add_argument("--shell-trials", type=int, default=len(POINTS), choices=STRIDE)
    parser.add_argument("--smollm2", type=Path, help="folder of SmolLM2-135M-Instruct, for that case")
    parser.add_argument("--hydra-python", help="for the contender hydra")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sweep.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows(CASES[arguments.case], arguments.smollm2, Path(folder))
        for name in arguments.contenders:
            measured = run(name, rows, arguments)
            report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
            report |= describe("torch", "transformers", "trl", "peft", "optuna", "hydra-core", "mlflow")
            report |= {"trials": len(POINTS), "places": arguments.places}
            case = report.setdefault("cases", {}).setdefault(arguments.case, {"contenders": {}})
            case |= {"batch": rows.case.batch, "rows": len(rows.data.train), "held_out": len(rows.data.validation)}
            case["contenders"][name] = measured
            case |= compare(case["contenders"])
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=2) + "\n")
            shown = {key: value for key, value in measured.items() if key != "losses"}
            print(f"{arguments.case}  {name:<10} {shown}", flush=True)


if __name__ == "__main__":
    main()
