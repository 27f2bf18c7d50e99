"""Rollbacks by hand: end the running rollout, or make the version that was served before the champion again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError, LoraloopError, StoreError
from loraloop.loop.cycle import Cycle, Event
from loraloop.loop.store import MovedError
from loraloop.workflows.retraining.outbox import FROM, LEDGER, REFUSE, Outbox

if TYPE_CHECKING:
    from loraloop.policy import Policy
    from loraloop.workflows.retraining.cycles import Cycles
    from loraloop.workflows.retraining.deployment import Deployment

PATIENCE = 30
"""Seconds that a rollback waits for another one to finish."""
AT_ONCE = timedelta(seconds=10)
"""Two rollbacks within this time were asked for at once: they mean the same version."""


def rolled_back(deployment: Deployment, number: int) -> str | None:
    """Why and when a version was rolled back last; ``None`` if it never was."""
    for entry in reversed(deployment.registry.history()):
        if entry.event == "rollback" and entry.numbers.get(FROM, entry.version) == number:
            return f"{entry.reason} ({entry.time:.16})"
    return None


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Carries out a rollback that a person asks for."""

    policy: Policy
    cycles: Cycles

    def run(self, deployment: Deployment, reason: str, version: int | None = None) -> None:
        """End the role's running rollout; where none runs, give the alias back to the version before.

        A rollout is ended in the database alone, also while registry and tracker cannot be reached.

        Args:
            deployment: The role's.
            reason: For the ledger.
            version: The version to roll back; ``None``: the candidate of the rollout, or else the champion.

        Raises:
            ConfigError: There is nothing to go back to, or another rollback was asked for at the same time.
            StoreError: It could not be carried out.
        """
        since = (datetime.fromisoformat(self.cycles.state.now()) - AT_ONCE).isoformat(timespec="milliseconds")
        if self._end_rollout(deployment, reason, version):
            self._publish(deployment)
            return
        with self.cycles.state.claim(f"rollback {deployment.model}", PATIENCE) as free:
            if not free:
                raise StoreError(
                    f"another rollback of {deployment.model} has been running for {PATIENCE} s: repeat this one later"
                )
            self._restore(deployment, reason, version, since)

    def _end_rollout(self, deployment: Deployment, reason: str, version: int | None) -> bool:
        """End the rollout, also while a tick promotes its candidate; ``False``: no such rollout runs."""
        while (cycle := self.cycles.state.open(deployment.role)) is not None and cycle.rollout:
            if version not in (None, cycle.candidate):
                return False
            try:
                self._withdraw(deployment, cycle, f"the rollout of version {cycle.candidate} was ended: {reason}")
                return True
            except MovedError:
                now = self.cycles.state.cycle(cycle.id)
                if now.ended and now.state != "promoted":  # nothing is left to roll back
                    over = f"the rollout of version {cycle.candidate} has just ended: {now.state}"
                    self.cycles.say(deployment.role, over)
                    return True
        return False

    def _withdraw(self, deployment: Deployment, cycle: Cycle, reason: str) -> None:
        if cycle.state != "promoting":
            self.cycles.end(cycle, "rollback", reason)
            return
        reason = f"{reason}; version {cycle.champion} is the champion again"
        self.cycles.advance(cycle, self._event(deployment, cycle.champion, cycle.candidate, reason))

    def _restore(self, deployment: Deployment, reason: str, version: int | None, since: str) -> None:
        outbox, model = self.cycles.outbox(deployment), deployment.model
        waiting = [each for each in self.cycles.state.unpublished(model) if LEDGER not in each.published]
        outbox.enter()
        if interrupted := [each.id for each in waiting if each.event.name == "rollback"]:
            self._report(deployment, outbox, interrupted[-1])
            return
        if version is None and self.cycles.state.recorded(model, "rollback", since):
            raise ConfigError(
                f"another rollback of {model} was decided within {AT_ONCE.seconds} s, so this one does nothing; with "
                "version=N it rolls back the champion as well"
            )
        event = self._restoring(deployment, reason, version)
        name = self.cycles.state.record(deployment.role, model, self.policy.name, event)
        outbox.enter()
        self._report(deployment, outbox, name)

    def _restoring(self, deployment: Deployment, reason: str, version: int | None) -> Event:
        """The event that makes the previous version the champion."""
        previous, active, model = deployment.previous(), deployment.active(), deployment.model
        if version not in (None, active):
            raise ConfigError(
                f"version={version} of {model} is not the candidate of a rollout and not the champion, which is "
                f"version {active}: nothing was rolled back"
            )
        if previous is None:
            raise ConfigError(
                f"{deployment.role} has nothing to go back to: no rollout runs, and no version of {model} was the "
                f"champion before version {active}; loraloop stage=promote registry.name={model} version=N promotes "
                "any version"
            )
        deployment.registry.resolve(str(previous))
        instead = f" instead of {active}" if active else ""
        return self._event(deployment, previous, active, f"version {previous} is the champion again{instead}: {reason}")

    def _event(self, deployment: Deployment, version: int, instead_of: int | None, reason: str) -> Event:
        alias, numbers = deployment.registry.serve_alias, {FROM: instead_of}
        return Event(name="rollback", version=version, reason=reason, numbers=numbers, alias=alias)

    def _report(self, deployment: Deployment, outbox: Outbox, id: str) -> None:
        """Say what the ledger has: another process may have moved the alias since the decision."""
        self._publish(deployment)
        name, reason = outbox.entered(id) or (REFUSE, f"{id} is not in the ledger")
        if name == REFUSE:
            raise StoreError(
                f"{deployment.role}: {reason}; to roll back the champion, repeat this in {AT_ONCE.seconds} s or with "
                "version=N"
            )
        self.cycles.say(deployment.role, f"rollback: {reason}")

    def _publish(self, deployment: Deployment) -> None:
        try:
            self.cycles.outbox(deployment).publish()
        except LoraloopError as error:
            text = f"the rollback is recorded; the next tick writes it to the registry and the tracker ({error})"
            self.cycles.say(deployment.role, text)
