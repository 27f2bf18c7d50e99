"""The picture of a compression: score over size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"original": "#52606d", "proposed": "#1a7f37", "not worse": "#1f6feb", "worse, or not known": "#9aa5b1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A form of the adapter.

    Attributes:
        name: Beside the point.
        size: Bytes of the weights.
        value: The score.
        error: Its standard error.
        verdict: A key of :data:`COLOURS`.
    """

    name: str
    size: int
    value: float
    error: float
    verdict: str


def sizes(points: Sequence[Point], metric: str, rows: int) -> Figure:
    """Score over bytes, on a logarithmic axis, with standard errors; 800 x 450 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for verdict, colour in COLOURS.items():
        chosen = [point for point in points if point.verdict == verdict]
        if chosen:
            places, values, errors = zip(*((p.size / 1024, p.value, p.error) for p in chosen), strict=True)
            axes.errorbar(places, values, yerr=errors, fmt="o", color=colour, capsize=3, label=verdict)
        for point in chosen:
            place = (5, 6) if point.name.startswith("rank") else (5, -14)  # forms of one size stand beside each other
            at = (point.size / 1024, point.value)
            axes.annotate(point.name, at, xytext=place, textcoords="offset points", fontsize=9)
    axes.margins(x=0.12)  # names stand to the right of the points
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("KiB of weights")
    axes.set_ylabel(metric)
    axes.set_title(f"{rows} held-out rows, bars show the standard error", loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    return figure
