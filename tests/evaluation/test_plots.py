"""Figures show the numbers that they are given."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from loraloop.evaluation.plots import bars, curves
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

    rewarded = [{"step": 1, "train/loss": 2.0, "train/reward": 0.5}]
    for figure in (bars(score(0), score(1)), curves(rewarded), curves([{"step": 1, "train/loss": 2.0}])):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        assert Image.open(stream).size == (800, 450)


def test_the_loss_curve_takes_each_series_from_the_entries_that_hold_it():
    """Entries with only a training or only an evaluation loss make two lines; an empty history makes none."""
    history = [{"step": 1, "train/loss": 3.0}, {"step": 2, "train/loss": 2.0}, {"step": 2, "eval/loss": 2.5}]
    axes = curves(history).axes[0]
    assert [list(map(float, line.get_ydata())) for line in axes.lines] == [[3.0, 2.0], [2.5]]
    assert not curves([]).axes[0].lines


@pytest.mark.parametrize(
    ("logged", "label", "drawn"),
    [
        ({"train/reward": 0.5}, "mean reward", [[0.5]]),
        ({"train/rewards/margins": 0.1, "eval/rewards/margins": 0.2}, "margin of the rewards", [[0.1], [0.2]]),
        ({}, None, None),
    ],
)
def test_rewards_have_a_panel_of_their_own(logged, label, drawn):
    """GRPO's reward, and DPO's and KTO's margins, stand beside a loss without a unit; supervised training's has one."""
    loss, *panels = curves([{"step": 1, "train/loss": 1.0, **logged}]).axes
    assert loss.get_ylabel() == ("loss" if label else "loss (nats)")
    found = [(panel.get_ylabel(), [list(map(float, line.get_ydata())) for line in panel.lines]) for panel in panels]
    assert found == ([(label, drawn)] if label else [])


def test_a_loss_below_zero_is_seen():
    """The loss of GRPO is about 0 and falls below it: the axis is not cut there."""
    (axes, _) = curves(
        [{"step": at, "train/loss": loss, "train/reward": 0.0} for at, loss in ((1, 0.1), (2, -0.3))]
    ).axes
    assert axes.get_ylim()[0] < -0.3


def test_no_global_state_is_touched():
    """Drawing never imports pyplot, so a display or an open figure of the user's is left alone."""
    code = (
        "import sys; from loraloop.evaluation.plots import curves; "
        "curves([{'step': 1, 'train/loss': 1.0}]); assert 'matplotlib.pyplot' not in sys.modules"
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
