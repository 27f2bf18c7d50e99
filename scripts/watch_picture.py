"""Remake the picture of a sweep at work, docs/images/watch.svg.

    python scripts/watch_picture.py

It starts `loraloop -m sweeps=rank_alpha_lr` in a folder of its own, and takes what `stage=watch` draws once trials have
ended while others train.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from loraloop.errors import LoraloopError
from loraloop.sweep import analysis, storage, watch_terminal, watching

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "watch.svg"
STUDY, WIDTH, ENDED = "rank_alpha_lr", 100, 6
SWEEP = ("-m", f"sweeps={STUDY}", "hydra.launcher.max_trials=4", "source.runs=8", "trainer.max_steps=64")


def seen(url: str) -> watching.Watched | None:
    """The study with trials that have ended beside some that have reported; ``None`` before."""
    with suppress(LoraloopError, KeyError):  # not begun yet
        found = watching.look(analysis.load(STUDY, url))
        reported = any(trial.state.name == "RUNNING" and trial.intermediate_values for trial in found.trials)
        return found if found.best and found.done >= ENDED and reported else None
    return None


def main() -> None:
    """Sweep, look and draw."""
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "log").open("wb") as log:
            sweep = subprocess.Popen([sys.executable, "-m", "loraloop", *SWEEP], cwd=folder, stdout=log, stderr=log)
        try:
            while not (found := seen(storage.address(None, f"{folder}/mlruns"))):
                if sweep.poll() is not None:
                    sys.exit(f"the sweep ended before: {(Path(folder) / 'log').read_text()[-500:]}")
                time.sleep(0.5)
            console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
            console.print(watching.draw(found), watch_terminal.KEYS, sep="\n")
            console.save_svg(str(IMAGE), title=f"loraloop stage=watch study={STUDY}")
        finally:
            sweep.terminate()
            sweep.wait()


if __name__ == "__main__":
    main()
