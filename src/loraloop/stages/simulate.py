"""Stage ``simulate``: what a policy's rules would have done, beside the other ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.core.durations import span
from loraloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.policy import Policy
    from loraloop.protocols import Canary, Trigger
    from loraloop.records import Job, Outcome
    from loraloop.simulation.simulation import Simulation
    from loraloop.simulation.trace import Rules, Trace

SHOWN = 12
"""Rows of each table of events."""
WORDS = {
    "trigger": "trigger fires",
    "promote": "promoted",
    "rollback": "rolled back",
    "stop": "stopped",
    "open": "undecided at the end",
}


def simulate(job: Job, policy: Policy, feedback: Feedback, simulation: Simulation, replay: str | None) -> None:
    """Show when the policy's trigger fires and how its canary decides, and what the other rules do; draw it.

    Raises:
        ConfigError: There is no such recording.
        DataError: It holds no rated session.
    """
    rules = _rules(policy)
    every = span(policy.every)
    if replay is None:
        stories = [simulation.play(each, every, span(policy.cooldown)) for each in rules]
        title = _crowd(simulation)
    else:
        outcomes = _recorded(str(replay), feedback)
        stories = _replayed(rules, outcomes, policy)
        rated = sum(each.stars is not None for each in outcomes)
        title = f"{replay}: {len(outcomes)} sessions, {rated} rated"
    print(title)
    for story in stories:
        _table(story)
    _beside(stories)
    print(f"picture: {_draw(job, stories, title)}")


def _rules(policy: Policy) -> list[Rules]:
    """The policy's rules, and the other ones at the same threshold and share."""
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


def _crowd(simulation: Simulation) -> str:
    crowd, first, later = simulation.crowd, simulation.stable, simulation.candidate
    return (
        f"made-up users, {simulation.days:g} days: {crowd.sessions} sessions a tick, {crowd.rated:.0%} rated; "
        f"first version {first.success:.1%} and {first.stars:g} stars, later ones {later.success:.1%} and "
        f"{later.stars:g}"
    )


def _recorded(recording: str, feedback: Feedback) -> list[Outcome]:
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


def _replayed(rules: Sequence[Rules], outcomes: Sequence[Outcome], policy: Policy) -> list[Trace]:
    from loraloop.simulation.replay import replay, rollouts

    found = rollouts(outcomes, policy.canary.share)
    for name in sorted({each.rollout for each in outcomes if each.rollout} - {rollout.id for rollout in found}):
        print(f"rollout {name} is left out: its sessions are not of two versions")
    every, cooldown = span(policy.every), span(policy.cooldown)
    return [replay(each, outcomes, every, cooldown, found) for each in rules]


def _beside(stories: Sequence[Trace]) -> None:
    """How often each of the rules did what, and when first."""
    rows = []
    for kind, word in WORDS.items():
        cells = []
        for story in stories:
            times = [event.time for event in story.events if event.kind == kind]
            cells.append(f"{len(times)} (first {times[0]:%Y-%m-%d %H:%M})" if times else "0")
        rows.append([word, *cells])
    console.table("what the rules do", ["", *(story.rules.name for story in stories)], rows)


def _table(story: Trace) -> None:
    rows = [[f"{e.time:%Y-%m-%d %H:%M}", e.subject, f"{WORDS[e.kind]}: {e.reason}"] for e in story.events]
    fired = {event.subject for event in story.events if event.kind == "trigger"}
    last = {version: (time, decision) for time, version, decision in story.looks}
    for version, (time, decision) in last.items():
        if version not in fired:
            rows.append([f"{time:%Y-%m-%d %H:%M}", version, f"no trigger so far: {decision.reason}"])
    more = len(rows) - SHOWN
    shown = sorted(rows)[:SHOWN] + ([["...", "", f"and {more} more"]] if more > 0 else [])
    console.table(story.rules.name, ["when (UTC)", "of", "what and why"], shown, numbers=False)


def _draw(job: Job, stories: Sequence[Trace], title: str) -> Path:
    """The stories; the bounds that are drawn are those of the rules that have any."""
    from loraloop.simulation.plots import picture

    job.output.mkdir(parents=True, exist_ok=True)
    place = job.output / "simulation.png"
    ordered = sorted(stories, key=lambda story: "sequential" not in story.rules.name)
    picture(ordered, title).savefig(place)
    return place
