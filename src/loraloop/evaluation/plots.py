"""Figures of a run: base beside adapter, and losses and rewards over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from loraloop.core.metrics import METRICS
from loraloop.records import FrozenMap, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


LOSSES = {"train/loss": "training", "eval/loss": "held-out"}
REWARDS = {"train/reward": "training", "train/rewards/margins": "training", "eval/rewards/margins": "held-out"}


def curves(history: Sequence[FrozenMap]) -> Figure:
    """Losses over optimizer steps and, in a panel beside them, rewards of a training that has some; 800 x 450 pixels.

    Args:
        history: Mappings with ``step`` and what was logged at it. GRPO's reward is the mean of the drawn answers; DPO's
            and KTO's is the margin by which good answers are ahead of bad ones. A loss of rewards has no unit, as KTO's
            and GRPO's.
    """
    figure = _figure()
    rewarded = any(name in entry for entry in history for name in REWARDS)
    panels = figure.subplots(1, 1 + rewarded, squeeze=False)[0]
    _lines(panels[0], history, LOSSES, "loss" if rewarded else "loss (nats)")
    if rewarded:
        drawn = any("train/reward" in entry for entry in history)
        _lines(panels[1], history, REWARDS, "mean reward" if drawn else "margin of the rewards")
    elif panels[0].lines:
        panels[0].set_ylim(bottom=0)
    return figure


def _lines(axes: Axes, history: Sequence[FrozenMap], series: Mapping[str, str], label: str) -> None:
    for name, kind in series.items():
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        if points:
            training = kind == "training"
            axes.plot(
                *zip(*points, strict=True), "-" if training else "o--", label=kind, color=BASE if training else ADAPTER
            )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
