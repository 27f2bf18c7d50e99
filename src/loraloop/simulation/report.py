"""What rules did in a simulation, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loraloop.core import console
from loraloop.simulation.simulation import Simulation
from loraloop.simulation.trace import Trace

SHOWN = 12
"""Rows of each table of events."""
WORDS = {
    "trigger": "trigger fires",
    "promote": "promoted",
    "rollback": "rolled back",
    "stop": "stopped",
    "open": "undecided at the end",
}


def headline(simulation: Simulation) -> str:
    """What is simulated, in one line."""
    crowd, first, later = simulation.crowd, simulation.stable, simulation.candidate
    return (
        f"made-up users, {simulation.days:g} days: {crowd.sessions} sessions a tick, {crowd.rated:.0%} rated; "
        f"first version {first.success:.1%} and {first.stars:g} stars, later ones {later.success:.1%} and "
        f"{later.stars:g}"
    )


def print_counts(traces: Sequence[Trace]) -> None:
    """Print how often each of the rules did what, and when first."""
    rows = []
    for kind, word in WORDS.items():
        cells = []
        for trace in traces:
            times = [event.time for event in trace.events if event.kind == kind]
            cells.append(f"{len(times)} (first {times[0]:%Y-%m-%d %H:%M})" if times else "0")
        rows.append([word, *cells])
    console.table("what the rules do", ["", *(trace.rules.name for trace in traces)], rows)


def print_events(trace: Trace) -> None:
    """Print what one of the rules did, and of versions without a trigger, why not."""
    rows = [[f"{e.time:%Y-%m-%d %H:%M}", e.subject, f"{WORDS[e.kind]}: {e.reason}"] for e in trace.events]
    fired = {event.subject for event in trace.events if event.kind == "trigger"}
    last = {version: (time, verdict) for time, version, verdict in trace.looks}
    for version, (time, verdict) in last.items():
        if version not in fired:
            rows.append([f"{time:%Y-%m-%d %H:%M}", version, f"no trigger so far: {verdict.reason}"])
    more = len(rows) - SHOWN
    shown = sorted(rows)[:SHOWN] + ([["...", "", f"and {more} more"]] if more > 0 else [])
    console.table(trace.rules.name, ["when (UTC)", "of", "what and why"], shown, numbers=False)


def draw(folder: Path, traces: Sequence[Trace], title: str) -> Path:
    """Draw the traces, with the bounds of sequential rules, into a file in ``folder``; returns the file."""
    from loraloop.simulation.plots import picture

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "simulation.png"
    ordered = sorted(traces, key=lambda trace: "sequential" not in trace.rules.name)
    picture(ordered, title).savefig(file)
    return file
