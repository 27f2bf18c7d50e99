"""The retraining loop: takes each role's cycle as far as it can go now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loraloop.core.transitions import ENDS, State
from loraloop.errors import ConfigError, LoraloopError, RegistryError, UnexpectedError
from loraloop.loop.cycle import Cycle
from loraloop.loop.store import MovedError
from loraloop.workflows.retraining import cycles as stored
from loraloop.workflows.retraining.audit import audit
from loraloop.workflows.retraining.deployment import NoChampionError, deployment_of, has_champion
from loraloop.workflows.retraining.due import RetrainingTrigger
from loraloop.workflows.retraining.heartbeat import heartbeat
from loraloop.workflows.retraining.rollout import StagedRollout
from loraloop.workflows.retraining.steps import TrainingSteps
from loraloop.workflows.retraining.training_set import TrainingSetBuilder

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.workflows.retraining.cycles import Cycles, Say
    from loraloop.workflows.retraining.deployment import Deployment
    from loraloop.workflows.retraining.outbox import Outbox
    from loraloop.workflows.retraining.training import Retraining

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RetrainingLoop:
    """Takes cycles along :data:`loraloop.core.transitions.TABLE`.

    The next step is chosen by the state in the database. A step's work has the same result when it is done twice, and
    one transaction completes the step. So after a process ends anywhere, the next one goes on from there.
    """

    policy: Policy
    cycles: Cycles
    training_sets: TrainingSetBuilder
    trigger: RetrainingTrigger
    training: TrainingSteps
    rollouts: StagedRollout

    @property
    def steps(self) -> Mapping[State, Callable[[Deployment, Cycle], Cycle]]:
        """What a tick does in each state of an open cycle."""
        return {
            "triggered": self.training.prepare,
            "prepared": self.training.train,
            "trained": self.training.register,
            "registered": self.rollouts.begin,
            "canary": self.rollouts.judge,
            "promoting": self.rollouts.finish,
        }

    def tick(
        self, roles: Mapping[str, str], names: Mapping[str, str], registry: MlflowRegistry, role: str | None = None
    ) -> None:
        """Go on with every role; a problem of one role, of whatever kind, does not stop the others.

        Where a role has a problem, its running rollout is judged all the same: it may be rolled back, not promoted.

        Args:
            roles: ``server.roles``.
            names: ``server.names``.
            registry: Any model's.
            role: The only one to go on with; ``None`` for those of the policy.

        Raises:
            LoraloopError: The problems, after everything that could be done.
        """
        asked = (role,) if role else self.policy.roles
        found, errors = self._deployments(asked, roles, names, registry)
        for deployment in found:
            if problem := self._tend(deployment, errors.get(deployment.role)):
                errors[deployment.role] = problem
        self._report_left_over({*(each.role for each in found), *(self.policy.roles if role else ())})
        for name, problem in errors.items():
            self.cycles.alerts.send(f"loraloop {name}: the loop cannot go on", str(problem))
        if role is None and any(isinstance(each, NoChampionError) for each in errors.values()):
            others = [each for each in roles if each not in asked and has_champion(each, roles, names, registry)]
            if others:
                errors[""] = ConfigError(
                    f"policy.roles=[{','.join(asked)}] does not name {', '.join(others)}, which has a champion: "
                    f"role={others[0]} goes on with it in this tick, policy.roles=[{others[0]}] in every one"
                )
        if errors:
            raise _together(list(errors.values()))

    def _tend(self, deployment: Deployment, problem: LoraloopError | None) -> LoraloopError | None:
        """Go on with one role; what keeps it from going on."""
        problem = problem or _problem_of(deployment.role, lambda: self._check(deployment))
        if problem is None:
            return _problem_of(deployment.role, lambda: self.proceed(deployment))
        _problem_of(deployment.role, lambda: self._judge_alone(deployment))
        return problem

    def proceed(self, deployment: Deployment) -> Cycle | None:
        """Take the role's open cycle as far as it can go now, or begin one if a retraining is due.

        Returns:
            The cycle; ``None``: none is open and none began, or another process works on the role.

        Raises:
            StoreError: The database cannot be used; the next call goes on.
            RegistryError: The registry cannot be used; likewise.
            TrackingError: The tracker cannot be used; likewise.
        """
        role, outbox = deployment.role, self.cycles.outbox(deployment)
        with self.cycles.state.claim(f"tick {role}") as free:
            if not free:
                self.cycles.say(role, "another tick works on this role: nothing done")
                return None
            deployment.registry.mark_rollouts(role)
            with heartbeat(lambda: self.cycles.state.ticked(role, deployment.model, intact=True)):
                return self._proceed(deployment, outbox)

    def _proceed(self, deployment: Deployment, outbox: Outbox) -> Cycle | None:
        role = deployment.role
        outbox.publish()
        try:
            cycle = self.cycles.state.open(role) or self.trigger.begin(deployment)
            while cycle is not None and cycle.state not in ENDS:
                before, cycle = cycle, self._step(deployment, cycle)
                outbox.enter()
                if cycle.state == before.state:
                    break
        except MovedError as error:  # by a person's rollback
            self.cycles.say(role, str(error))
            cycle = self.cycles.state.open(role)
        outbox.publish()
        self.cycles.state.ticked(role, deployment.model, intact=True)
        return cycle

    def _step(self, deployment: Deployment, cycle: Cycle) -> Cycle:
        champion = deployment.champion().number
        if champion != cycle.champion and cycle.state != "promoting":
            reason = f"the champion was moved by hand from {cycle.champion} to {champion}"
            self.training.retraining.abandon(cycle, reason)
            return self.cycles.end(cycle, "stop", reason)
        return self.steps[cycle.state](deployment, cycle)

    def _judge_alone(self, deployment: Deployment) -> None:
        """Judge the running rollout of a role that cannot go on. That needs the database alone.

        Raises:
            LoraloopError: The verdict cannot be published; the next call publishes it.
        """
        with self.cycles.state.claim(f"tick {deployment.role}") as free:
            cycle = self.cycles.state.open(deployment.role) if free else None
            if cycle is not None and cycle.state == "canary":
                with suppress(MovedError):  # by a person's rollback
                    self.rollouts.judge(deployment, cycle, may_promote=False)
                self.cycles.outbox(deployment).publish()

    def _deployments(
        self, asked: Sequence[str], roles: Mapping[str, str], names: Mapping[str, str], registry: MlflowRegistry
    ) -> tuple[list[Deployment], dict[str, LoraloopError]]:
        """The deployments of the roles that are asked for, and what is wrong with the settings of some."""
        found: list[Deployment] = []
        errors: dict[str, LoraloopError] = {}
        for role in asked:
            try:
                found.append(deployment_of(role, roles, names, registry))
            except ConfigError as error:
                errors[role] = error
        for each in found:
            if same := [other.role for other in found if other.model == each.model and other is not each]:
                errors[each.role] = ConfigError(
                    f"{each.role} and {', '.join(same)} are both answered by {each.model}, and the loop retrains a "
                    "model for one role: leave one of them in policy.roles"
                )
        return found, errors

    def _check(self, deployment: Deployment) -> None:
        """Check what a role needs to go on: its ledger, champion and golden set, and that its cycle is of its model.

        Raises:
            ConfigError: Something of that is not right.
        """
        role, model = deployment.role, deployment.model
        cycle = self.cycles.state.open(role)
        if cycle is not None and cycle.model != model:
            raise ConfigError(
                f"the open cycle {cycle.id} of {role} is about {cycle.model}, and server.roles now has {model}: end it "
                f"with stage=rollback role={role}, or give the role its model back"
            )
        try:
            audit(self.cycles.state.database, model, deployment.registry)
        except RegistryError as error:
            self.cycles.state.ticked(role, model, intact=False)
            raise ConfigError(f"{role}: the ledger is broken: {error}") from error
        try:
            deployment.champion()
            self.training_sets.check(deployment)
        except ConfigError:
            raise
        except LoraloopError as error:
            raise ConfigError(f"{role}: {error}") from error

    def _report_left_over(self, roles: Collection[str]) -> None:
        """Alert people to open cycles of other roles."""
        for cycle in self.cycles.state.open_cycles():
            if cycle.role not in roles:
                what = f"the rollout of version {cycle.candidate}" if cycle.rollout else f"the cycle {cycle.id}"
                text = f"{what} is not over, and no tick goes on with it: name the role in policy.roles"
                text += f", or end it with stage=rollback role={cycle.role}" if cycle.rollout else ""
                self.cycles.say(cycle.role, text)
                self.cycles.alerts.send(f"loraloop {cycle.role}: not in the policy", text)


def _problem_of(role: str, step: Callable[[], object]) -> LoraloopError | None:
    """Take a step; the error that it ends with, if it does."""
    try:
        step()
    except LoraloopError as error:
        return error
    except Exception as error:  # a mistake of the program must not stop the other roles
        _log.exception("the tick of %s failed", role)
        return UnexpectedError(f"{role}: {type(error).__name__}: {error}; the log has the traceback")
    return None


def _together(errors: Sequence[LoraloopError]) -> LoraloopError:
    if len(errors) == 1:
        return errors[0]
    if all(isinstance(each, ConfigError) for each in errors):
        return ConfigError(*map(str, errors))
    unexpected = any(isinstance(each, UnexpectedError) for each in errors)
    return (UnexpectedError if unexpected else LoraloopError)("\n".join(map(str, errors)))


def retraining_loop(
    policy: Policy,
    retraining: Retraining,
    sessions: Store,
    registry: MlflowRegistry,
    alerts: Alerts,
    say: Say = stored.say,
) -> RetrainingLoop:
    """The loop with its parts; its base model stays in memory from one tick to the next."""
    folder = registry.folder / "loop"
    parts = retraining.parts
    training_sets = TrainingSetBuilder(policy, folder, sessions, parts.source, parts.ocr, parts.dataset, parts.job.seed)
    cycles = stored.open_cycles(policy, sessions, parts.tracker, alerts, say)
    training = TrainingSteps(folder=folder, cycles=cycles, training_sets=training_sets, retraining=retraining)
    return RetrainingLoop(
        policy=policy,
        cycles=cycles,
        training_sets=training_sets,
        trigger=RetrainingTrigger(
            policy=policy, cycles=cycles, sessions=sessions, seed=parts.job.seed, shortage=training.shortage
        ),
        training=training,
        rollouts=StagedRollout(policy=policy, cycles=cycles, sessions=sessions),
    )
