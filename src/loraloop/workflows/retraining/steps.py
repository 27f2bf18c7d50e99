"""The steps of a cycle before its rollout: prepare the training set, train, and ask the gate."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import atomic
from loraloop.errors import (
    ConfigError,
    DataError,
    ModelError,
    RegistryError,
    StoreError,
    TrackingError,
    TrainingError,
)
from loraloop.loop.cycle import Cycle, Event
from loraloop.workflows.retraining import training_set
from loraloop.workflows.retraining.due import SHORT
from loraloop.workflows.retraining.training_set import ShortageError

if TYPE_CHECKING:
    from loraloop.workflows.retraining.cycles import Cycles
    from loraloop.workflows.retraining.deployment import Deployment
    from loraloop.workflows.retraining.training import Retraining
    from loraloop.workflows.retraining.training_set import TrainingSet, TrainingSetBuilder

_log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a training is started that makes no progress, such as one that the system kills for its memory."""
REACHED = "reached"
"""File with the step of the newest checkpoint when the training was last started."""


@dataclass(frozen=True, kw_only=True)
class TrainingSteps:
    """Takes a cycle from ``triggered`` to ``registered``.

    Attributes:
        folder: Holds a folder for each cycle.
    """

    folder: Path
    cycles: Cycles
    training_sets: TrainingSetBuilder
    retraining: Retraining

    def home(self, cycle: Cycle) -> Path:
        """The cycle's folder."""
        return self.folder / cycle.id

    def prepare(self, deployment: Deployment, cycle: Cycle) -> Cycle:
        """Make the training set."""
        tokenizer = self.retraining.parts.model.skeleton().tokenizer
        try:
            misfit = partial(self.retraining.misfit, deployment)
            made = self.training_sets.prepare(self.home(cycle), deployment, tokenizer, self._min_golden, misfit)
        except ShortageError as error:
            return self.cycles.end(cycle, "refuse", str(error), {SHORT: True})
        except DataError as error:
            return self.cycles.end(cycle, "refuse", str(error))
        event = Event(name="corrective", version=cycle.champion, reason=_contents(made), numbers=made.facts)
        return self.cycles.advance(cycle, event)

    def shortage(self, deployment: Deployment) -> str | None:
        """Why a cycle of the role would be refused for want of rows; ``None`` if it would not."""
        tokenizer = self.retraining.parts.model.skeleton().tokenizer
        return self.training_sets.shortage(deployment, tokenizer, self._min_golden)

    @property
    def _min_golden(self) -> int:
        return self.retraining.parts.gate.min_rows

    def train(self, deployment: Deployment, cycle: Cycle) -> Cycle:
        """Train and measure, or give up a training that makes no progress."""
        self.cycles.outbox(deployment).publish()  # makes the cycle's run, under which the training's run is nested
        cycle, home = self.cycles.state.cycle(cycle.id), self.home(cycle)
        reached, known = _newest_step(home), _read_step(home / REACHED)
        attempts = cycle.attempts if reached <= known else 0
        if attempts >= ATTEMPTS:
            reason = f"the training was started {attempts} times without progress: see the system's log"
            self.retraining.abandon(cycle, reason)
            return self.cycles.end(cycle, "fail", reason)
        cycle = self.cycles.state.note(cycle, attempts=attempts + 1)
        _write_step(home / REACHED, reached)
        if problem := self._problem(deployment, cycle):
            return self.cycles.end(cycle, "fail", problem)
        result = self.retraining.result(home)
        figures = result["figures"]
        reason = f"{figures['rows']} rows, {figures['steps']} steps in {figures['seconds']:.0f} s"
        numbers = figures | {"run": result["run"]}
        return self.cycles.advance(cycle, Event(name="train", version=cycle.champion, reason=reason, numbers=numbers))

    def register(self, deployment: Deployment, cycle: Cycle) -> Cycle:
        """Ask the gate, and register the adapter if it passes."""
        home = self.home(cycle)
        verdict = self.retraining.decide(home)
        if not verdict.passed:
            gate = Event(name="gate", version=None, reason=verdict.reason, numbers=verdict.numbers)
            refuse = Event(name="refuse", version=cycle.candidate, reason=f"the gate: {verdict.reason}")
            return self.cycles.advance(cycle, gate, refuse)
        version = deployment.registry.register(*self.retraining.adapter(home), self.retraining.result(home)["run"])
        if known := _known(deployment, cycle, version.number):
            return self.cycles.end(cycle, "refuse", f"the training made version {version.number} again: {known}")
        event = Event(name="gate", version=version.number, reason=verdict.reason, numbers=verdict.numbers)
        return self.cycles.advance(cycle, event, candidate=version.number)

    def _problem(self, deployment: Deployment, cycle: Cycle) -> str | None:
        """Train; the error that ends the cycle, if there is one.

        Raises:
            StoreError: The database cannot be used; the next tick goes on.
            RegistryError: The registry cannot be used; likewise.
            TrackingError: The tracker cannot be used; likewise.
        """
        home = self.home(cycle)
        try:
            self.retraining.train(cycle, home, training_set.read(home), deployment.registry, deployment.champion())
        except (StoreError, RegistryError, TrackingError):
            raise
        except (ConfigError, DataError, ModelError, TrainingError) as error:
            return str(error)
        except Exception as error:  # whatever a library raises, most often that memory ran out
            _log.exception("the training of %s failed", cycle.id)
            return f"{type(error).__name__}: {error}"
        return None


def _contents(made: TrainingSet) -> str:
    facts = made.facts
    beyond, overlap = facts.get("sessions_beyond_mix", 0), facts.get("overlap", 0)
    return (
        f"{len(made.corrective)} corrective rows of {facts['sessions']} sessions and {len(made.earlier)} earlier ones, "
        f"measured on {len(made.golden)} golden rows"
        + f"; {beyond} corrected sessions have no place in policy.mix.rows" * bool(beyond)
        + f"; {overlap} corrected sessions were left out, because golden rows ask the same" * bool(overlap)
        + (f"; learned by {facts['learn']} ({facts['learn_why']})" if "learn" in facts else "")
    )


def _known(deployment: Deployment, cycle: Cycle, number: int) -> str | None:
    """What an earlier cycle did with a version; ``None``: the version is new."""
    if number == cycle.champion:
        return "it is the champion"
    for entry in reversed(deployment.registry.history()):
        if entry.version == number and entry.numbers.get("cycle") not in (None, cycle.id):
            return f"{entry.event}, {entry.reason} ({entry.time:.16})"
    return None


def _newest_step(home: Path) -> int:
    """The step of a cycle's newest intact checkpoint; 0 if there is none."""
    from loraloop.trainer import checkpoints

    found = [each for each in home.glob("training/checkpoints/checkpoint-*") if checkpoints.verify(each) is None]
    return max((int(each.name.rpartition("-")[2]) for each in found), default=0)


def _read_step(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def _write_step(path: Path, step: int) -> None:
    with atomic.write(path) as stream:
        stream.write(str(step).encode())
