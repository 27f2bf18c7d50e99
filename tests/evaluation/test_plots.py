"""Figures show the numbers that they are given."""

from __future__ import annotations

import io
import subprocess
import sys

from loraloop.evaluation.plots import bars, loss_curve
from loraloop.records import Score


def score(rate: float) -> Score:
    rates = dict.fromkeys(("exact_match", "task_accuracy", "rouge_l"), rate)
    errors = dict.fromkeys(rates, 0.01)
    return Score(rows=640, values={"loss": 1, **rates, "bleu": rate * 100, "chrf": 50}, errors=errors)


def test_bars_stand_at_the_rates_in_percent():
    """Heights are the rates on 0..100, base first, each with its value written above."""
    axes = bars(score(0.25), score(0.9)).axes[0]
    heights = [round(bar.get_height(), 6) for bar in axes.patches]
    assert heights == [25, 25, 25, 25, 50, 90, 90, 90, 90, 50]
    assert [text.get_text() for text in axes.texts] == ["25.0"] * 4 + ["50.0"] + ["90.0"] * 4 + ["50.0"]


def test_figures_are_800_pixels_wide():
    """A saved figure has the promised size without any further settings."""
    from PIL import Image

    for figure in (bars(score(0), score(1)), loss_curve([{"step": 1, "train/loss": 2.0}])):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        assert Image.open(stream).size == (800, 450)


def test_the_loss_curve_takes_each_series_from_the_entries_that_hold_it():
    """Entries with only a training or only an evaluation loss make two lines; an empty history makes none."""
    history = [{"step": 1, "train/loss": 3.0}, {"step": 2, "train/loss": 2.0}, {"step": 2, "eval/loss": 2.5}]
    axes = loss_curve(history).axes[0]
    assert [list(map(float, line.get_ydata())) for line in axes.lines] == [[3.0, 2.0], [2.5]]
    assert not loss_curve([]).axes[0].lines


def test_no_global_state_is_touched():
    """Drawing never imports pyplot, so a display or an open figure of the user's is left alone."""
    code = (
        "import sys; from loraloop.evaluation.plots import loss_curve; "
        "loss_curve([{'step': 1, 'train/loss': 1.0}]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_part_loads_no_heavy_library():
    """Building the part and comparing scores needs neither torch nor anything else that takes seconds to load."""
    code = (
        "import sys; from loraloop.evaluation import compare, plots, store; "
        "from loraloop.evaluation.evaluation import Evaluation; Evaluation(); "
        "heavy = {'torch', 'transformers', 'peft', 'sacrebleu', 'rapidfuzz', 'matplotlib', 'rich'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
