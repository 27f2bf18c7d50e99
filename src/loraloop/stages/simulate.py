"""Stage ``simulate``: what a policy's rules would have done, beside other rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core.durations import span
from loraloop.workflows import what_if

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.policy import Policy
    from loraloop.records import Job
    from loraloop.simulation.simulation import Simulation


def simulate(job: Job, policy: Policy, feedback: Feedback, simulation: Simulation, replay: str | None) -> None:
    """Show when the policy's trigger fires and how its canary decides, and what the other rules do; draw it.

    Raises:
        ConfigError: There is no such recording.
        DataError: It holds no rated session.
    """
    from loraloop.simulation import report

    rules = what_if.rules(policy)
    every = span(policy.every)
    if replay is None:
        traces = [simulation.play(each, every, span(policy.cooldown)) for each in rules]
        title = report.headline(simulation)
    else:
        outcomes = what_if.recorded(str(replay), feedback)
        traces = what_if.replayed(rules, outcomes, policy)
        rated = sum(each.stars is not None for each in outcomes)
        title = f"{replay}: {len(outcomes)} sessions, {rated} rated"
    print(title)
    for trace in traces:
        report.print_events(trace)
    report.print_counts(traces)
    print(f"picture: {report.draw(job.output, traces, title)}")
