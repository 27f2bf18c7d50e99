"""The transition table of the retraining cycle: each step that a cycle can take, who takes it, and what it writes.

The loop's store refuses every other step. The diagram and the table in the documentation are made from this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal[
    "idle", "triggered", "prepared", "trained", "registered", "canary", "promoting", "promoted", "rolled_back",
    "refused", "stopped", "failed",
]  # fmt: skip
"""``idle``: the role has no open cycle. It is no state of a cycle, and is never stored."""
EventName = Literal[
    "trigger", "corrective", "train", "gate", "rollout", "promote", "rollback", "stop", "refuse", "fail"
]  # fmt: skip
"""What the ledger calls an event."""
Mover = Literal["tick", "canary rule", "stage=rollout", "stage=rollback"]
"""Who takes a step: the loop, the rule that judges a rollout, or a person by a command."""

SERVED = "served"
"""The alias that the role follows, ``registry.serve_alias``, which is ``champion`` by default."""
CANARY = "canary"
"""The alias of the version that a rollout tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One row of the table.

    Attributes:
        event: The ledger's entry; ``None``: the step writes none.
        when: The condition, for people.
        preceded_by: An event that may be written before ``event`` in the same step.
        alias: The alias that the event moves, :data:`SERVED` or :data:`CANARY`.
        alert: Whether people are alerted.
        rollout: ``begins``; ``ends``; or ``won``: the alias ``canary`` is removed, and both versions go on answering
            until the next step, when the champion has been replaced.
    """

    source: State
    event: EventName | None
    target: State
    mover: Mover
    when: str
    preceded_by: EventName | None = None
    alias: str | None = None
    alert: bool = False
    rollout: Literal["begins", "won", "ends"] | None = None


MOVED = "a person moved the champion since the cycle began"
TABLE = (
    Transition(
        source="idle", event="trigger", target="triggered", mover="tick",
        when="the ratings of the champion are shown to be low, and neither cooldown nor daily cap forbids a training",
    ),
    Transition(
        source="idle", event="rollout", target="canary", mover="stage=rollout", alias=CANARY, rollout="begins",
        when="a person chose a version to try",
    ),
    Transition(
        source="idle", event="rollback", target="idle", mover="stage=rollback", alias=SERVED, alert=True,
        when="no rollout runs: the version that was served before becomes the champion again",
    ),
    Transition(
        source="triggered", event="corrective", target="prepared", mover="tick",
        when="the training set is on disk",
    ),
    Transition(
        source="triggered", event="refuse", target="refused", mover="tick", alert=True,
        when="too few corrected sessions, or a golden set that is too small or would be trained on",
    ),
    Transition(source="triggered", event="stop", target="stopped", mover="tick", alert=True, when=MOVED),
    Transition(
        source="prepared", event="train", target="trained", mover="tick",
        when="the adapter is trained, and measured beside the base and the champion",
    ),
    Transition(
        source="prepared", event="fail", target="failed", mover="tick", alert=True,
        when="the training raised an error, or was started three times without progress",
    ),
    Transition(source="prepared", event="stop", target="stopped", mover="tick", alert=True, when=MOVED),
    Transition(
        source="trained", event="gate", target="registered", mover="tick",
        when="the gate passes, and the adapter forgets no more than policy.max_forgetting",
    ),
    Transition(
        source="trained", event="refuse", target="refused", mover="tick", preceded_by="gate", alert=True,
        when="the gate does not pass, or the training made a version that the ledger knows",
    ),
    Transition(source="trained", event="stop", target="stopped", mover="tick", alert=True, when=MOVED),
    Transition(
        source="registered", event="rollout", target="canary", mover="tick", alias=CANARY, rollout="begins",
        when="always: the candidate answers policy.canary.share of the conversations",
    ),
    Transition(source="registered", event="stop", target="stopped", mover="tick", alert=True, when=MOVED),
    Transition(
        source="canary", event="promote", target="promoting", mover="canary rule", alias=SERVED, rollout="won",
        when="the candidate is good enough",
    ),
    Transition(
        source="canary", event="rollback", target="rolled_back", mover="canary rule", alert=True, rollout="ends",
        when="the candidate is worse, or it is good enough and its files are damaged",
    ),
    Transition(
        source="canary", event="rollback", target="rolled_back", mover="stage=rollback", alert=True, rollout="ends",
        when="a person ends the rollout",
    ),
    Transition(
        source="canary", event="stop", target="stopped", mover="canary rule", alert=True, rollout="ends",
        when="undecided at the largest age or size, or the two versions cannot be compared",
    ),
    Transition(
        source="canary", event="stop", target="stopped", mover="tick", alert=True, rollout="ends", when=MOVED,
    ),
    Transition(
        source="promoting", event=None, target="promoted", mover="tick", rollout="ends",
        when="the candidate is the champion",
    ),
    Transition(
        source="promoting", event="rollback", target="rolled_back", mover="tick", alert=True, rollout="ends",
        when="the promotion could not be carried out: the ledger has a refuse entry in its place",
    ),
    Transition(
        source="promoting", event="rollback", target="rolled_back", mover="stage=rollback", alias=SERVED, alert=True,
        rollout="ends", when="a person ends the rollout: the version that the cycle began with is the champion again",
    ),
    Transition(
        source="promoting", event="stop", target="stopped", mover="tick", alert=True, rollout="ends",
        when="a person moved the champion to a third version",
    ),
)  # fmt: skip
OPEN: tuple[State, ...] = tuple(dict.fromkeys(row.source for row in TABLE if row.source != "idle"))
"""States of a cycle that is not over, in the order of a cycle."""
ENDS: tuple[State, ...] = ("promoted", "rolled_back", "refused", "stopped", "failed")
"""States in which a cycle is over."""
ROLLOUT_OVER = frozenset(row.event for row in TABLE if row.event and row.rollout in ("won", "ends"))
"""Events with which the alias ``canary`` is removed, and after which the ledger's reader sees no rollout any more."""
MOVES_SERVED = frozenset(row.event for row in TABLE if row.alias == SERVED)
"""Events that move the alias that is served."""


def find(source: str, event: str | None, *, alias: bool = False, preceded_by: str | None = None) -> Transition:
    """The row that a step follows. Rows that differ in their mover alone are one step.

    Args:
        source: The cycle's state.
        event: The step's last event; ``None`` where it has none.
        alias: Whether the event moves an alias.
        preceded_by: The event before the last one; ``None`` where there is none.

    Raises:
        ValueError: The table has no such row: a mistake in the program.
    """
    for row in TABLE:
        same = (row.source, row.event, row.alias is not None) == (source, event, alias)
        if same and preceded_by in (None, row.preceded_by):
            return row
    what = f"no event {event}" if event else "no step without an event"
    extra = f" after {preceded_by}" * (preceded_by is not None) + " that moves an alias" * alias
    raise ValueError(f"state {source} has {what}{extra}: see loraloop.core.transitions.TABLE")
