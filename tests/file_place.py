"""A place for traces that is a file, for processes that have no module of a test."""

from __future__ import annotations

import os
from pathlib import Path


class File:
    """A place that writes down who sent what; a path is of the whole process, so that the child writes there too."""

    name, takes_ratings = "file", True

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, sessions: list[str]) -> None:
        """Keep the process and what it was given; refuse "bad"."""
        if "bad" in sessions:
            raise ValueError("no bad ones\nreally")
        with self.path.open("a") as stream:
            stream.write(f"{os.getpid()} {sessions}\n")

    def tell(self, judged: str) -> None:
        """Keep it too."""
        self.send([judged])
