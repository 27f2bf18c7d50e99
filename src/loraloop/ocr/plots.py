"""Figure of a benchmark: errors by kind, and speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("grey", "Otsu", "tesseract_psm6", "rapidocr")
FLOOR = 0.01  # percent; an error of zero stands here on the logarithmic axis


def bench(report: Mapping[str, Any]) -> Figure:
    """Character error by kind (logarithmic) beside images per second; 1200 x 450 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    errors, speed = figure.subplots(1, 2, width_ratios=(3, 2))
    if report["pictures"]:
        _errors(errors, report["pictures"])
    if report["speed"]:
        rates = report["speed"]["images_per_second"]
        drawn = speed.barh(list(rates), list(rates.values()), color="#1f6feb")
        speed.bar_label(drawn, fmt="%.2f", padding=2)
        speed.invert_yaxis()
        speed.set_xlabel("images per second, file to words")
    for axes in (errors, speed):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _errors(axes: Axes, table: Mapping[str, Mapping[str, float]]) -> None:
    engines = [name for name in SHOWN if name in table]
    kinds = [kind for kind in table[engines[0]] if kind != "> 95%"]
    for number, name in enumerate(engines):
        places = [place + (number - (len(engines) - 1) / 2) * 0.2 for place in range(len(kinds))]
        axes.bar(places, [max(FLOOR, 100 * table[name][kind]) for kind in kinds], width=0.19, label=name)
    axes.set_yscale("log")
    axes.set_xticks(range(len(kinds)), kinds, rotation=30, ha="right")
    axes.set_ylabel("characters wrong, %")
    axes.legend(frameon=False)
