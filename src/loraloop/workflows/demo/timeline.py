"""What the demonstration prints."""

from __future__ import annotations

import logging
import shutil
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loraloop.core import console

WIDTH = 118


@dataclass(frozen=True)
class Timeline:
    """Prints what happens, with the minutes and seconds since the start of the demonstration."""

    start: float = field(default_factory=time.monotonic)

    def say(self, who: str, sentence: str) -> None:
        """Print one sentence about ``who``, folded to the terminal's width."""
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        head = f"{minutes:02d}:{seconds:02d}  {who:<9}  "
        width = min(shutil.get_terminal_size().columns, WIDTH)
        print(textwrap.fill(head + sentence, width, subsequent_indent=" " * len(head)), flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Log errors only: a line for each request would hide the timeline, which also has what alerts say."""
    logger = logging.getLogger("loraloop")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def print_places(folder: Path, role: str, every: str) -> None:
    """Print the commands that show what the demonstration left in ``folder``."""
    again = f"loraloop folder={folder} stage="
    console.facts(
        f"everything is in {folder}: database, artefacts, sessions and the ledger",
        {
            "decisions": f"{again}ledger role={role}",
            "what if": f"{again}simulate replay={folder}/sessions.db policy.every={every}",
            "runs": f"mlflow ui --workers 1 --backend-store-uri sqlite:///{folder}/mlflow.db",
        },
    )
