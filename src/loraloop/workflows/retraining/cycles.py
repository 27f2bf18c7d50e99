"""What every step of a cycle needs: the stored state, and the way from its events to ledger, tracker and people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loraloop.core.transitions import EventName
from loraloop.loop.cycle import Cycle, Event
from loraloop.workflows.retraining.outbox import Outbox

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.loop.store import LoopStore
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Tracker
    from loraloop.workflows.retraining.deployment import Deployment

Say = Callable[[str, str], None]
"""Called with a role and a sentence."""


def say(role: str, sentence: str) -> None:
    """Print the sentence."""
    print(f"{role}: {sentence}", flush=True)


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """Takes steps of cycles and publishes their events.

    Attributes:
        state: The stored cycles, rollouts and events.
        tracker: Keeps one run per cycle.
        alerts: Where people are alerted.
        say: Reports each event, and its reason, as it happens.
    """

    state: LoopStore
    tracker: Tracker
    alerts: Alerts
    say: Say = field(default=say)

    def outbox(self, deployment: Deployment) -> Outbox:
        """The outbox of a deployment's model."""
        return Outbox(self.state, deployment.model, deployment.registry, self.tracker, self.alerts)

    def advance(self, cycle: Cycle, *events: Event, **changes: Any) -> Cycle:
        """Take a step with at least one event, and report the last one.

        Raises:
            MovedError: Another process has changed the cycle.
        """
        advanced = self.state.advance(cycle, *events, **changes)
        self.say(cycle.role, f"{events[-1].name}: {events[-1].reason}")
        return advanced

    def end(self, cycle: Cycle, name: EventName, reason: str, numbers: Mapping[str, Any] | None = None) -> Cycle:
        """Take a step with one event about the candidate that moves no alias.

        Raises:
            MovedError: Another process has changed the cycle.
        """
        return self.advance(cycle, Event(name=name, version=cycle.candidate, reason=reason, numbers=numbers or {}))


def open_cycles(policy: Policy, sessions: Store, tracker: Tracker, alerts: Alerts, say: Say = say) -> Cycles:
    """The cycles that are stored beside the sessions."""
    from loraloop.loop.store import LoopStore

    return Cycles(state=LoopStore(sessions.database, policy.name), tracker=tracker, alerts=alerts, say=say)
