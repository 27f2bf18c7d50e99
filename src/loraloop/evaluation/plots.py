"""Figures of a run: base beside adapter, and the loss over steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.core.metrics import METRICS
from loraloop.records import FrozenMap, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE, ADAPTER = "#9aa5b1", "#1f6feb"


def _figure() -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bars(base: Score, adapter: Score) -> Figure:
    """Rate metrics of ``base`` beside ``adapter``, on 0..100, with values and standard errors; 800 x 450 pixels."""
    figure = _figure()
    axes = figure.subplots()
    rates = [(name, metric) for name, metric in METRICS.items() if metric.scale and name in base.values]
    for offset, score, label, colour in ((-0.2, base, "base", BASE), (0.2, adapter, "adapter", ADAPTER)):
        heights = [score[name] * (metric.scale or 1) for name, metric in rates]
        errors = [score.errors.get(name, 0.0) * (metric.scale or 1) for name, metric in rates]
        places = [place + offset for place in range(len(rates))]
        drawn = axes.bar(places, heights, width=0.38, label=label, color=colour, yerr=errors, ecolor="#52606d")
        axes.bar_label(drawn, labels=[f"{height:.1f}" for height in heights], padding=2)
    axes.set_xticks(range(len(rates)), [metric.label for _, metric in rates])
    axes.set_ylim(0, 108)
    axes.set_ylabel("score (0 to 100, higher is better)")
    axes.set_title(f"{adapter.rows} held-out rows, bars show the standard error", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def loss_curve(history: Sequence[FrozenMap]) -> Figure:
    """Training and evaluation loss over optimizer steps, from mappings with ``step``, ``train/loss``, ``eval/loss``."""
    figure = _figure()
    axes = figure.subplots()
    for name, label, style in (("train/loss", "training", "-"), ("eval/loss", "held-out", "o--")):
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, color=BASE if style == "-" else ADAPTER)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    return figure
