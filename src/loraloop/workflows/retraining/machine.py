"""The loop itself: what a role's cycle does next, from what is in the database, on disk and in the registry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic
from loraloop.core.durations import span
from loraloop.errors import (
    ConfigError,
    DataError,
    LoraloopError,
    ModelError,
    RegistryError,
    StoreError,
    TrackingError,
    TrainingError,
)
from loraloop.loop.cycle import ENDS, RETRAIN, Cycle, Event
from loraloop.loop.store import MovedError
from loraloop.workflows.retraining import deployment as lines
from loraloop.workflows.retraining.audit import audit
from loraloop.workflows.retraining.outbox import Outbox
from loraloop.workflows.retraining.rollout import Rollouts
from loraloop.workflows.retraining.training_set import TrainingSetBuilder

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.workflows.retraining.deployment import Deployment
    from loraloop.workflows.retraining.training import Retraining

_log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a training is begun that gets no further, such as one that the system kills for its memory."""
REACHED = "reached"
"""File with the newest checkpoint's step when a training was begun last."""
DAY = timedelta(days=1)


@dataclass(kw_only=True)
class Loop(Rollouts):
    """Takes the cycle of a role as far as it can go now.

    Every step is found from the state in the database, does its work where doing it twice makes no difference, and ends
    with one transaction; so a process that ends anywhere is followed by one that goes on.

    Attributes:
        folder: Home of the cycles' folders.
    """

    folder: Path
    teacher: TrainingSetBuilder
    retraining: Retraining

    def tick(self, roles: Mapping[str, str], names: Mapping[str, str], registry: MlflowRegistry) -> None:
        """One step for every role of the policy; what is wrong about one of them holds up no other.

        Raises:
            LoraloopError: With what is wrong, after all that could be done.
        """
        found, errors = self._lines(roles, names, registry)
        for line in found:
            problem = errors.get(line.role) or self._problem(line)
            try:
                if problem is None:
                    self.tend(line)
                    continue
                self.judge(line)
            except LoraloopError as found_out:
                problem = problem or found_out
            errors[line.role] = problem
        self._name_untended(found)
        for role, problem in errors.items():
            self.alerts.send(f"loraloop {role}: the loop is held up", str(problem))
        if len(errors) == 1:
            raise next(iter(errors.values()))
        if errors and all(isinstance(each, ConfigError) for each in errors.values()):
            raise ConfigError(*map(str, errors.values()))
        if errors:
            raise LoraloopError("\n".join(map(str, errors.values())))

    def _lines(
        self, roles: Mapping[str, str], names: Mapping[str, str], registry: MlflowRegistry
    ) -> tuple[list[Deployment], dict[str, LoraloopError]]:
        """The roles' lines, and what is wrong with the settings of some."""
        found: list[Deployment] = []
        errors: dict[str, LoraloopError] = {}
        for role in self.policy.roles:
            try:
                found.append(lines.line(role, roles, names, registry))
            except ConfigError as error:
                errors[role] = error
        for line in found:
            if same := [each.role for each in found if each.model == line.model and each is not line]:
                errors[line.role] = ConfigError(
                    f"{line.role} and {', '.join(same)} are both answered by {line.model}: tend one"
                )
        return found, errors

    def _problem(self, line: Deployment) -> LoraloopError | None:
        """What keeps a role from going on: its ledger, champion, golden set, or a cycle of another model."""
        cycle = self.loop.open(line.role)
        if cycle is not None and cycle.model != line.model:
            return ConfigError(
                f"{cycle.id} of {line.role} is about {cycle.model}, and server.roles has {line.model} by now: end it "
                f"with stage=rollback role={line.role}, or give the role its model back"
            )
        try:
            audit(self.loop.database, line.model, line.registry)
        except RegistryError as error:
            self.loop.ticked(line.role, line.model, intact=False)
            return ConfigError(f"the ledger is broken: {error}")
        try:
            line.champion()
            self.teacher.check(line)
        except ConfigError as error:
            return error
        except LoraloopError as error:
            return ConfigError(f"{line.role}: {error}")
        return None

    def _name_untended(self, tended: Sequence[Deployment]) -> None:
        roles = {line.role for line in tended}
        for cycle in self.loop.unended():
            if cycle.role not in roles:
                what = f"the rollout of version {cycle.candidate}" if cycle.rollout else f"the cycle {cycle.id}"
                text = f"{what} is not over, and nobody tends it: name the role in policy.roles"
                text += f", or end it with stage=rollback role={cycle.role}" if cycle.rollout else ""
                self.say(cycle.role, text)
                self.alerts.send(f"loraloop {cycle.role}: not tended", text)

    def judge(self, line: Deployment) -> None:
        """Let a running rollout lose or end where the loop cannot go on otherwise: that takes the database alone.

        Raises:
            LoraloopError: What was decided cannot be told; the next call tells it.
        """
        with self.loop.claim(f"tick {line.role}") as free:
            cycle = self.loop.open(line.role) if free else None
            if cycle is not None and cycle.state == "canary":
                with suppress(MovedError):  # by hand, as a rollback
                    self._canary(line, cycle, held=True)
                self.telling(line).publish()

    def tend(self, line: Deployment) -> Cycle | None:
        """Go on with the role's cycle, or begin one if the trigger asks for it; the cycle, if there is one.

        Raises:
            StoreError: The database cannot be used; the next call goes on.
            RegistryError: The registry cannot be used, likewise.
            TrackingError: The tracker cannot be used, likewise.
        """
        with self.loop.claim(f"tick {line.role}") as free:
            if not free:
                self.say(line.role, "another tick is at work on this role: left to it")
                return None
            telling = self.telling(line)
            telling.publish()
            try:
                cycle = self.loop.open(line.role) or self._trigger(line)
                while cycle is not None and cycle.state not in ENDS:
                    before, cycle = cycle, self._step(line, cycle, telling)
                    telling.enter()
                    if cycle.state == before.state:
                        break
            except MovedError as error:  # by hand, as a rollback
                self.say(line.role, str(error))
                cycle = self.loop.open(line.role)
            telling.publish()
            self.loop.ticked(line.role, line.model, intact=True)
            return cycle

    def _trigger(self, line: Deployment) -> Cycle | None:
        champion = line.champion()
        now, since = self.loop.now(), self._since(line, champion.number)
        outcomes = self.store.outcomes(answered=line.session(champion.number), since=since)
        verdict = self.policy.trigger.decide(outcomes, since, now)
        if not verdict.passed:
            self.say(line.role, f"nothing to do: {verdict.reason}")
            return None
        if held := self._held(line, now):
            self.say(line.role, f"nothing to do: {held}, although {verdict.reason}")
            return None
        numbers = {**verdict.numbers, "since": since}
        decided = Event(event="trigger", version=champion.number, reason=verdict.reason, numbers=numbers)
        cycle = self.loop.begin(line.role, line.model, champion.number, self.policy.name, decided)
        self.say(line.role, f"trigger: {verdict.reason}")
        return cycle

    def _since(self, line: Deployment, champion: int) -> str:
        """From when on ratings speak: since it reigns, and after what an adapter was trained on already."""
        cycles = [each for each in self.loop.cycles(line.role) if each.attempts and each.state != "failed"]
        return max([line.since(champion), *(each.began for each in cycles if each.champion == champion)])

    def _held(self, line: Deployment, now: str) -> str | None:
        """Why no retraining may begin now, if so; what was refused before its training held nothing up but itself."""
        moment, cooldown = datetime.fromisoformat(now), span(self.policy.cooldown)
        cycles = [each for each in self.loop.cycles(line.role) if each.kind == RETRAIN]
        ages = [(each, moment - datetime.fromisoformat(each.began)) for each in cycles]
        past = [(each, age) for each, age in ages if age >= timedelta(0)]  # a clock may once have been ahead
        trained = [(each, age) for each, age in past if each.attempts]
        if trained and trained[-1][1] < cooldown:
            return f"the last retraining began at {trained[-1][0].began:.16} (policy.cooldown={self.policy.cooldown})"
        today = sum(age < DAY for _, age in trained)
        if today >= self.policy.daily_cap:
            return f"{today} retrainings began in 24 hours (policy.daily_cap={self.policy.daily_cap})"
        if past and past[-1][1] < cooldown and not past[-1][0].attempts:
            return self.teacher.short(line.role, line.mine)
        return None

    def _step(self, line: Deployment, cycle: Cycle, telling: Outbox) -> Cycle:
        champion = line.champion()
        if champion.number != cycle.champion and cycle.state != "promoting":
            reason = f"the champion was moved by hand from {cycle.champion} to {champion.number}"
            self.retraining.abandon(cycle, reason)
            return self._stop(line, cycle, reason)
        steps: Mapping[str, Callable[[Deployment, Cycle], Cycle]] = {
            "triggered": self._triggered,
            "trained": self._trained,
            "registered": self._registered,
            "canary": self._canary,
        }
        if cycle.state == "prepared":
            telling.publish()  # the training's run is nested under the cycle's, which that makes
            return self._prepared(line, self.loop.cycle(cycle.id))
        if cycle.state == "promoting":
            telling.enter()  # this moves the alias
            return self._promoting(line, cycle)
        return steps[cycle.state](line, cycle)

    def _triggered(self, line: Deployment, cycle: Cycle) -> Cycle:
        tokenizer = self.retraining.parts.model.skeleton().tokenizer
        try:
            training_set = self.teacher.prepare(self.home(cycle), line.role, line.mine, tokenizer)
            self._require_measurable(len(training_set.golden))
        except DataError as error:
            return self._end(line, cycle, "refused", "refuse", str(error))
        facts = training_set.facts
        reason = (
            f"{len(training_set.corrective)} corrective rows of {facts['sessions']} sessions and "
            f"{len(training_set.earlier)} earlier ones, measured on {len(training_set.golden)} golden rows"
        )
        return self._go(line, cycle, "prepared", "corrective", reason, cycle.champion, facts)

    def _require_measurable(self, rows: int) -> None:
        needed = self.retraining.parts.gate.min_rows
        if rows < needed:
            raise DataError(
                f"the golden set has {rows} rows, and a verdict needs gate.min_rows={needed}: collect more from "
                "`source` and name them with policy.golden=FILE, or lower gate.min_rows"
            )

    def _prepared(self, line: Deployment, cycle: Cycle) -> Cycle:
        from loraloop.workflows.retraining import training_set

        home = self.home(cycle)
        reached, known = _reached(home), _marked(home / REACHED)
        attempts = cycle.attempts if reached <= known else 0  # one that gets on is not given up
        if attempts >= ATTEMPTS:
            reason = f"the training was begun {attempts} times and never came to its end: see the system's log"
            self.retraining.abandon(cycle, reason)
            return self._end(line, cycle, "failed", "fail", reason)
        cycle = self.loop.note(cycle, attempts=attempts + 1)
        _mark(home / REACHED, reached)
        try:
            self.retraining.train(cycle, home, training_set.read(home), line.registry, line.champion())
        except (StoreError, RegistryError, TrackingError):
            raise
        except (ConfigError, DataError, ModelError, TrainingError) as error:
            return self._end(line, cycle, "failed", "fail", str(error))
        except Exception as error:  # whatever a library raises: out of memory, most of all
            _log.exception("the training of %s failed", cycle.id)
            return self._end(line, cycle, "failed", "fail", f"{type(error).__name__}: {error}")
        result = self.retraining.result(home)
        figures = result["figures"]
        reason = f"{figures['rows']} rows, {figures['steps']} steps in {figures['seconds']:.0f} s"
        return self._go(line, cycle, "trained", "train", reason, cycle.champion, figures | {"run": result["run"]})

    def _trained(self, line: Deployment, cycle: Cycle) -> Cycle:
        home = self.home(cycle)
        verdict = self.retraining.decide(home)
        if not verdict.passed:
            gate = Event(event="gate", version=None, reason=verdict.reason, numbers=verdict.numbers)
            return self._end(line, cycle, "refused", "refuse", f"the gate: {verdict.reason}", gate)
        version = line.registry.register(*self.retraining.adapter(home), self.retraining.result(home)["run"])
        if seen := self._seen(line, cycle, version.number):
            reason = f"the training made version {version.number} again: {seen}"
            return self._end(line, cycle, "refused", "refuse", reason)
        return self._go(
            line, cycle, "registered", "gate", verdict.reason, version.number, verdict.numbers, candidate=version.number
        )

    def _seen(self, line: Deployment, cycle: Cycle, number: int) -> str | None:
        """What became of a version before, if it is not a new one."""
        if number == cycle.champion:
            return "it is the champion"
        for entry in reversed(line.registry.history()):
            if entry.version == number and entry.numbers.get("cycle") not in (None, cycle.id):
                return f"{entry.event}, {entry.reason} ({entry.time:.16})"
        return None

    def _go(
        self,
        line: Deployment,
        cycle: Cycle,
        state: str,
        event: str,
        reason: str,
        version: int,
        numbers: Mapping[str, Any],
        **changes: Any,
    ) -> Cycle:
        decided = Event(event=event, version=version, reason=reason, numbers=numbers)
        made = self.loop.advance(cycle, state, decided, **changes)
        self.say(line.role, f"{event}: {reason}")
        return made

    def home(self, cycle: Cycle) -> Path:
        """The cycle's folder."""
        return self.folder / cycle.id


def loop(policy: Policy, retraining: Retraining, store: Store, registry: MlflowRegistry, alerts: Alerts) -> Loop:
    """The loop with its parts in hand; its base model stays in memory from one tick to the next."""
    from loraloop.loop.store import LoopStore

    folder = registry.folder / "loop"
    parts = retraining.parts
    teacher = TrainingSetBuilder(policy, folder, store, parts.source, parts.ocr, parts.dataset, parts.job.seed)
    return Loop(
        policy=policy,
        folder=folder,
        loop=LoopStore(store.database, policy.name),
        store=store,
        teacher=teacher,
        retraining=retraining,
        tracker=parts.tracker,
        alerts=alerts,
    )


def _reached(home: Path) -> int:
    """The step of a cycle's newest sound checkpoint."""
    from loraloop.trainer import checkpoints

    found = [each for each in home.glob("training/checkpoints/checkpoint-*") if checkpoints.verify(each) is None]
    return max((int(each.name.rpartition("-")[2]) for each in found), default=0)


def _marked(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def _mark(path: Path, step: int) -> None:
    with atomic.write(path) as stream:
        stream.write(str(step).encode())
