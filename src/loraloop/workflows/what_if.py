"""The rules that a simulation compares, and the recordings that they are replayed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core.durations import span
from loraloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.policy import Policy
    from loraloop.protocols import Canary, Trigger
    from loraloop.records import Outcome
    from loraloop.simulation.trace import Rules, Trace


def rules(policy: Policy) -> list[Rules]:
    """The policy's rules, and the plain or sequential ones instead, at the same threshold and share."""
    from loraloop.canary import plain as plain_canary
    from loraloop.canary import sequential as sequential_canary
    from loraloop.simulation.trace import Rules
    from loraloop.trigger import plain as plain_trigger
    from loraloop.trigger import sequential as sequential_trigger

    trigger = plain_trigger.Plain if _variant(policy.trigger) == "sequential" else sequential_trigger.Sequential
    threshold, share = policy.trigger.threshold, policy.canary.share
    canary: Canary = sequential_canary.Sequential(share=share)
    if _variant(policy.canary) == "sequential":  # as in policy=seed: to promote below would trigger at once
        canary = plain_canary.Plain(share=share, min_rating=threshold)
    others = trigger(threshold=threshold), canary
    return [
        Rules(f"{_name(policy.trigger, policy.canary)} (policy {policy.name})", policy.trigger, policy.canary),
        Rules(_name(*others), *others),
    ]


def _name(trigger: Trigger, canary: Canary) -> str:
    one, two = _variant(trigger), _variant(canary)
    return one if one == two else f"trigger={one}, canary={two}"


def _variant(rule: object) -> str:
    return type(rule).__module__.rpartition(".")[2]


def recorded(recording: str, feedback: Feedback) -> list[Outcome]:
    """The sessions of a file, or of the database at a URL.

    Raises:
        ConfigError: There is no such file.
        DataError: No session has been rated by a person.
    """
    url = recording
    if "://" not in recording:
        if not Path(recording).is_file():
            raise ConfigError(f"replay={recording}: no such file; feedback.url names the one that a server writes")
        url = f"sqlite:///{recording}"
    store = replace(feedback, url=url).existing()
    try:
        outcomes = store.outcomes()
    finally:
        store.close()
    if not any(each.stars is not None for each in outcomes):
        raise DataError(
            f"replay={recording}: none of {len(outcomes)} sessions has been rated by a person, and the rules go by "
            "ratings (stage=feedback, or the rating links)"
        )
    return outcomes


def replayed(rules: Sequence[Rules], outcomes: Sequence[Outcome], policy: Policy) -> list[Trace]:
    """What each of the rules does on recorded sessions; a rollout that cannot be replayed is named and left out."""
    from loraloop.simulation.replay import replay, rollouts

    found = rollouts(outcomes, policy.canary.share)
    for name in sorted({each.rollout for each in outcomes if each.rollout} - {rollout.id for rollout in found}):
        print(f"rollout {name} is left out: its sessions are not of two versions")
    every, cooldown = span(policy.every), span(policy.cooldown)
    return [replay(each, outcomes, every, cooldown, found) for each in rules]
