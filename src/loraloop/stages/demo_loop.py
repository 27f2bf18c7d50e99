"""Stage ``demo_loop``: the loop closes by itself, with a real server, real training and simulated users."""

from __future__ import annotations

import logging
import shutil
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from loraloop.core import console
from loraloop.errors import LoraloopError
from loraloop.records import Collection
from loraloop.workflows import rows as data
from loraloop.workflows.demo.users import Seen, Users
from loraloop.workflows.experiment import Experiment
from loraloop.workflows.retraining.deployment import deployment_of
from loraloop.workflows.retraining.machine import retraining_loop
from loraloop.workflows.retraining.training import Retraining

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Store
    from loraloop.gate.gate import Gate
    from loraloop.loop.cycle import Cycle
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Ocr, Source, Tracker
    from loraloop.records import Example, Job, Version
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.server import Server
    from loraloop.trainer.sft import Sft
    from loraloop.workflows.retraining.deployment import Deployment
    from loraloop.workflows.retraining.machine import RetrainingLoop

ROUND = 100
"""Sessions between two ticks."""
MOST_ROUNDS = 40
WIDTH = 118


class UndecidedError(LoraloopError):
    """The demonstration did not end as it should."""


@dataclass(frozen=True)
class Timeline:
    """Prints what happens, each with the minutes and seconds since the beginning."""

    began: float = field(default_factory=time.monotonic)

    def say(self, who: str, sentence: str) -> None:
        """Print it."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        head = f"{minutes:02d}:{seconds:02d}  {who:<9}  "
        width = min(shutil.get_terminal_size().columns, WIDTH)
        print(textwrap.fill(head + sentence, width, subsequent_indent=" " * len(head)), flush=True)


@dataclass(frozen=True)
class Mistaught:
    """A source whose questions have the answers of others: what is trained on it is broken."""

    source: Source

    def collect(self, ocr: Ocr | None) -> Collection:
        """Every example with the answer of the one before."""
        found = self.source.collect(ocr).examples
        return Collection(tuple(replace(each, output=found[at - 1].output) for at, each in enumerate(found)))

    def correct(self, example: Example, answer: str) -> bool:
        """As the source does."""
        return self.source.correct(example, answer)


def demo_loop(
    job: Job,
    policy: Policy,
    questions: Source,
    weak_steps: int,
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    lora: Lora,
    trainer: Sft,
    evaluation: Evaluation,
    gate: Gate,
    tracker: Tracker,
    registry: MlflowRegistry,
    serve: LocalBackend,
    server: Server,
    feedback: Feedback,
    alerts: Alerts,
) -> None:
    """Serve a weak adapter, let users rate it, and let the loop do the rest; then try a broken one.

    Raises:
        UndecidedError: The loop did not come to the ends that it should; the timeline shows how far it went.
    """
    timeline = Timeline()
    line = deployment_of(policy.roles[0], server.roles, server.names, registry)
    course = Experiment(
        job=job,
        source=source,
        ocr=ocr,
        dataset=dataset,
        model=model,
        lora=lora,
        trainer=replace(trainer, max_steps=weak_steps),
        evaluation=evaluation,
        gate=gate,
        tracker=tracker,
        registry=line.registry,
    )
    retraining = Retraining(
        job=job,
        source=source,
        ocr=ocr,
        dataset=dataset,
        model=model,
        lora=lora,
        trainer=trainer,
        evaluation=evaluation,
        gate=gate,
        tracker=tracker,
        max_forgetting=policy.max_forgetting,
    )
    with _quiet(), closing(feedback.open()) as store:
        loop = retraining_loop(policy, retraining, store, registry, alerts, timeline.say)
        weak = _trained(course, "weak", line)
        line.registry.promote(weak.number, registry.serve_alias, "the demonstration begins with a weak version")
        timeline.say("trainer", f"a weak adapter, {weak_steps} steps, is {line.name_of(weak.number)} and the champion")
        with _serving(serve, server, model, registry, store, loop) as url:
            timeline.say("server", f"serves {line.role} at {url}")
            asked = questions.collect(None).examples
            users = Users(url, line.role, asked, questions.correct, np.random.default_rng(job.seed))
            show = Show(timeline, users, store, loop, line)
            show.until("promoted", reviewed=True)
            broken = _trained(replace(course, source=Mistaught(source)), "broken", line)
            timeline.say("trainer", f"{line.name_of(broken.number)} learned wrong answers, and is tried past the gate")
            loop.rollouts.choose(line, broken)
            show.until("rolled_back")
    _conclude(line, policy.every)


@dataclass(frozen=True)
class Show:
    """Users and ticks in turn."""

    timeline: Timeline
    users: Users
    store: Store
    loop: RetrainingLoop
    line: Deployment

    def until(self, end: str, *, reviewed: bool = False) -> None:
        """Go on until a cycle is over.

        Args:
            end: The state that it should end in.
            reviewed: Whether somebody accepts the corrections that users write.

        Raises:
            UndecidedError: It ended in another one, or in none for too long.
        """
        for _ in range(MOST_ROUNDS):
            self.timeline.say("users", _heard(self.users.visit(ROUND)))
            if reviewed and (waiting := self.store.proposals()) and self.loop.cycles.state.open(self.line.role) is None:
                for each in waiting:
                    self.store.decide(each.id, "accepted")
                self.timeline.say("reviewer", f"accepts the {len(waiting)} answers that users wrote instead")
            cycle = self.loop.proceed(self.line) or self._last()
            if cycle is not None and cycle.ended is not None:
                break
        state = cycle.state if cycle is not None else "never begun"
        if state != end:
            raise UndecidedError(f"the demonstration's cycle should be {end}, but is {state}: the timeline says why")
        reigning = self.line.name_of(self.line.champion().number)
        self.timeline.say("loop", f"{state.replace('_', ' ')}: {reigning} is the champion, and answers everybody")

    def _last(self) -> Cycle | None:
        cycles = self.loop.cycles.state.cycles(self.line.role)
        return cycles[-1] if cycles else None


def _heard(seen: Sequence[Seen]) -> str:
    said = []
    for name, count in sorted(Counter(each.answered for each in seen).items()):
        own = [each for each in seen if each.answered == name]
        right = np.mean([each.right for each in own])
        said.append(f"{count} by {name}, {right:.0%} right, {np.mean([each.stars for each in own]):.1f} stars")
    return f"{len(seen)} sessions: {'; '.join(said)}"


def _trained(course: Experiment, name: str, line: Deployment) -> Version:
    """Train and register an adapter without asking the gate."""
    course = replace(course, job=replace(course.job, output=course.job.output / name))
    skeleton, loaded = course.skeleton(), course.model.load()
    rows = data.prepare(course.source, course.ocr, course.dataset, skeleton.tokenizer)
    estimate = course.trainer.estimate(skeleton, course.lora, rows)
    with course.running(rows, estimate, name) as run:
        base = course.base_score(loaded, rows)
        trained, training = course.trainer.train(loaded, course.lora, rows, run, course.job.output)
        _, manifest = course.measure(run, rows, loaded, base, trained, training)
        return line.registry.register(training.adapter, manifest, run.id)


@contextmanager
def _serving(
    serve: LocalBackend, server: Server, model: CausalLM, registry: MlflowRegistry, store: Store, loop: RetrainingLoop
) -> Iterator[str]:
    """The server on a thread of its own; its address."""
    from loraloop.dataset.template import format_renderer
    from loraloop.feedback.form import router
    from loraloop.monitor.metrics import PrometheusMetrics
    from loraloop.serve import run
    from loraloop.serve.api import create_app
    from loraloop.serve.names import Versions

    versions = Versions(registry.resolve, server.names, registry.serve_alias)
    backend = serve.attach(model.load(), format_renderer, versions.version)
    metrics = PrometheusMetrics(backend.stats, loop.cycles.state.stats)
    app = create_app(backend, store, versions, server, metrics, [router(store)], rollouts=loop.cycles.state.rollouts)
    with server.listen() as listening:
        running = run.server(app, server)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, name="server")
        thread.start()
        try:
            while not running.started and thread.is_alive():
                time.sleep(0.01)
            yield run.address(server.host, listening.getsockname()[1])
        finally:
            running.should_exit = True
            thread.join()


@contextmanager
def _quiet() -> Iterator[None]:
    """A line per request would hide the timeline, which also has what alerts say."""
    logger = logging.getLogger("loraloop")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _conclude(line: Deployment, every: str) -> None:
    folder = line.registry.folder
    again = f"loraloop folder={folder} stage="
    console.facts(
        f"everything is in {folder}: database, artefacts, sessions and the ledger",
        {
            "decisions": f"{again}ledger role={line.role}",
            "what if": f"{again}simulate replay={folder}/sessions.db policy.every={every}",
            "runs": f"mlflow ui --workers 1 --backend-store-uri sqlite:///{folder}/mlflow.db",
        },
    )
