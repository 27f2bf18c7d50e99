"""Remake the picture of the curves of KTO and GRPO that MLflow shows, docs/images/curves.png.

    python scripts/curves_picture.py

A weak adapter on `source=flips` goes on by KTO, with every second answer in another order and labelled bad, and by
GRPO; the two `plots/loss.png` stand beside each other.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from loraloop.source.flips import Flips

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "curves.png"
GOES_ON = ("continue_from=models:/loraloop/1", "gate.must_beat=[base]")
KTO = ("trainer=kto", "source=files", "source.path=labelled.jsonl", "trainer.learning_rate=1e-4", "trainer.log_steps=2")
GRPO = ("trainer=grpo", "source=flips", "trainer.log_steps=1")


def loraloop(folder: Path, *overrides: str) -> None:
    """Run a command there."""
    subprocess.run([sys.executable, "-m", "loraloop", *overrides], cwd=folder, check=True)


def label(path: Path) -> None:
    """Write flips with their answer, and in turn with tails before heads as a bad one."""
    rows = Flips(seed=1, runs=12).collect(None).examples
    shown = [
        {
            "prompt": f"{row.instruction}\n{row.input}\n> ",
            "completion": row.output if good else ", ".join(reversed(row.output.split(", "))),
            "label": good,
        }
        for row, good in zip(rows, itertools.cycle([True, False]))
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in shown))


def curves(folder: Path) -> Image.Image:
    """The newest picture of curves."""
    newest = max(folder.glob("mlruns/**/plots/loss.png"), key=lambda path: path.stat().st_mtime)
    return Image.open(newest).convert("RGB")


def main() -> None:
    """Train, and put the pictures together."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        label(folder / "labelled.jsonl")
        loraloop(folder, "trainer.max_steps=90", "gate.max_p=1", "gate.margin=0")
        pictures = []
        for method in (KTO, GRPO):
            loraloop(folder, *method, *GOES_ON)
            pictures.append(curves(folder))
    whole = Image.new("RGB", (sum(each.width for each in pictures), max(each.height for each in pictures)), "white")
    left = 0
    for each in pictures:
        whole.paste(each, (left, 0))
        left += each.width
    whole.quantize(64).save(IMAGE, optimize=True)


if __name__ == "__main__":
    main()
