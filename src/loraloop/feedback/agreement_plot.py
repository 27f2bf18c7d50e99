"""The picture of a judge against people: their mean stars by its score, and which stars meet which scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloop.core import atomic
from loraloop.feedback.agreement import STARS, Agreement, Rated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE, IDEAL, GRID = "#1f6feb", "#57606a", "#d0d7de"


def draw(file: Path, judges: Mapping[str, tuple[Agreement, Sequence[Rated]]]) -> None:
    """Draw a row for each judge into ``file``, 900 x 400 px each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4 * len(judges)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(len(judges), 2, squeeze=False)
    for (left, right), (name, (found, rated)) in zip(places, judges.items(), strict=True):
        _calibration(left, found)
        left.set_title(f"{name}: {found.sessions} sessions", loc="left", fontsize=10)
        _counts(right, rated)
    with atomic.write(file) as stream:
        figure.savefig(stream, format="png")


def _calibration(axes: Axes, found: Agreement) -> None:
    """People's mean stars by the judge's score; on the diagonal the score means what it says."""
    axes.plot([1, 5], [1, 5], color=IDEAL, linestyle="--", linewidth=1, label="as people")
    for score, (count, stars) in found.calibration.items():
        if count:
            axes.plot([score, score], [stars.low, stars.high], color=LINE, linewidth=2)
            axes.scatter([score], [stars.value], color=LINE, s=40, zorder=3)
            axes.annotate(f"n={count}", (score, stars.value), xytext=(6, -10), textcoords="offset points", fontsize=8)
    axes.set_xlabel("score of the judge")
    axes.set_ylabel("mean stars of people, 95%")
    axes.set_xlim(0.6, 5.6)
    axes.set_ylim(0.6, 5.4)
    axes.grid(color=GRID, linewidth=0.5)
    axes.legend(frameon=False, loc="upper left")


def _counts(axes: Axes, rated: Sequence[Rated]) -> None:
    """How many sessions have which stars and which score."""
    counts: Any = np.zeros((5, 5), dtype=int)
    for each in rated:
        counts[each.stars - 1, each.score - 1] += 1
    axes.imshow(counts, origin="lower", cmap="Blues", extent=(0.5, 5.5, 0.5, 5.5), vmin=0)
    for stars in STARS:
        for score in STARS:
            if number := counts[stars - 1, score - 1]:
                colour = "white" if number > counts.max() / 2 else "black"
                axes.text(score, stars, str(number), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xlabel("score of the judge")
    axes.set_ylabel("stars of people")
