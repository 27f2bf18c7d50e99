"""The picture of a simulation: ratings with their confidence sequence, the canary's differences, what the rules did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from loraloop.simulation.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE, BAND, BOUND, GRID = "#1f6feb", "#1f6feb", "#c2410c", "#d0d7de"
MARKS = {
    "trigger": ("v", "#c2410c", "trigger fires"),
    "promote": ("^", "#1a7f37", "promotion"),
    "rollback": ("X", "#cf222e", "rollback"),
    "stop": ("s", "#6e7781", "stopped"),
}
MEASURES = (("success", 100, "success, points"), ("stars", 1, "rating, stars"))


def picture(stories: Sequence[Trace], title: str) -> Figure:
    """Draw the first story's ratings and rollouts, and below them what every story's rules did when; 1200 x 1000 px.

    Args:
        stories: That of the rules that have bounds first; all over the same time.
        title: What was simulated.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 10), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    first = stories[0]
    rating, success, stars, events = figure.subplots(
        4, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 2, 0.25 + 0.35 * len(stories)]}
    )
    _ratings(rating, first)
    for axes, (name, factor, label) in zip((success, stars), MEASURES, strict=True):
        _differences(axes, first, name, factor, label)
    _events(events, stories)
    # ConciseDateFormatter names what every tick shares, such as the day, once.
    places = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    events.xaxis.set_major_locator(places)
    events.xaxis.set_major_formatter(ConciseDateFormatter(places, tz=UTC))  # type: ignore[no-untyped-call]
    events.set_xlabel("UTC")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def _at(time: datetime) -> float:
    """The moment on matplotlib's axis."""
    from matplotlib.dates import date2num

    return float(date2num(time))  # type: ignore[no-untyped-call]


def _ratings(axes: Axes, trace: Trace) -> None:
    """The trigger's mean and bounds, look by look."""
    label = True
    for _, group in groupby(trace.looks, key=lambda look: (look[1], look[2].numbers.get("window_began"))):
        looks = [(_at(time), found.numbers) for time, _, found in group if found.numbers["mean"] is not None]
        times = [time for time, _ in looks]
        axes.plot(times, [numbers["mean"] for _, numbers in looks], color=LINE, label="mean" if label else None)
        if looks and "upper" in looks[0][1]:
            low, high = ([numbers[end] for _, numbers in looks] for end in ("lower", "upper"))
            name = "confidence sequence" if label else None
            axes.fill_between(times, low, high, color=BAND, alpha=0.18, linewidth=0, label=name)
        label = label and not looks
    threshold = trace.rules.trigger.threshold
    axes.axhline(threshold, color=BOUND, linestyle="--", label=f"threshold {threshold:g}")
    means = [decision.numbers["mean"] for _, _, decision in trace.looks if decision.numbers["mean"] is not None]
    axes.set_ylim(max(1, min([*means, threshold]) - 1), 5)
    axes.set_ylabel("rating of the active\nversion, stars")
    _dress(axes)
    _flags(axes, trace, ("trigger",))


def _differences(axes: Axes, trace: Trace, name: str, factor: float, label: str) -> None:
    """The canary's difference to the stable version with its bounds, rollout by rollout."""
    named = True
    for _, group in groupby(trace.rulings, key=lambda ruling: ruling[1].id):
        found = [(_at(time), ruling.numbers[name]) for time, _, ruling in group]
        found = [(time, each) for time, each in found if isinstance(each, dict) and each["lower"] is not None]
        if not found:
            continue
        times = [time for time, _ in found]
        value, low, high = ([factor * each[key] for _, each in found] for key in ("difference", "lower", "upper"))
        axes.plot(times, value, color=LINE, marker=".", label="canary - stable" if named else None)
        axes.fill_between(times, low, high, color=BAND, alpha=0.18, linewidth=0, label="bounds" if named else None)
        margin = -factor * found[0][1]["margin"]
        if named:
            axes.axhline(margin, color=BOUND, linestyle="--", label=f"margin {margin:g}")
            axes.set_ylim(*_limits(margin, value, low, high))
        named = False
    axes.axhline(0, color="#57606a", linewidth=0.8)
    axes.set_ylabel(f"difference of\n{label}")
    _dress(axes)
    _flags(axes, trace, ("promote", "rollback", "stop"))


def _limits(margin: float, *series: Sequence[float]) -> tuple[float, float]:
    """Room for what is seen after the first ticks, whose bounds may be as wide as the scale."""
    values = [value for each in series for value in each[len(each) // 5 :]]
    low, high = min(*values, 3 * margin), max(*values, -2 * margin)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _events(axes: Axes, stories: Sequence[Trace]) -> None:
    """A line for each story's rules."""
    for row, trace in enumerate(stories):
        axes.axhline(-row, color=GRID, linewidth=0.8, zorder=0)
        for kind, (marker, colour, label) in MARKS.items():
            times = [_at(event.time) for event in trace.events if event.kind == kind]
            axes.scatter(times, [-row] * len(times), marker=marker, color=colour, s=70, label=None if row else label)
    axes.set_yticks([-row for row in range(len(stories))], [trace.rules.name.replace(" (", "\n(") for trace in stories])
    axes.set_ylim(-len(stories) + 0.4, 0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.legend(frameon=False, ncols=len(MARKS), loc="lower right", bbox_to_anchor=(1, 0.9))


def _flags(axes: Axes, trace: Trace, kinds: Sequence[str]) -> None:
    for event in trace.events:
        if event.kind in kinds:
            axes.axvline(_at(event.time), color=MARKS[event.kind][1], linewidth=1.2, alpha=0.7)


def _dress(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(framealpha=0.85, edgecolor="none", ncols=3, loc="upper right")
