"""Real workers with the real engine, killed while they read."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from loraloop.ocr.tesseract import Tesseract
from waiting import until

TEXT = "The quick brown fox"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    made = [folder / f"{number}.png" for number in range(4)]
    for image in made:
        picture = Image.new("L", (500, 90), 255)
        ImageDraw.Draw(picture).text((20, 25), TEXT, fill=0, font=ImageFont.load_default(36))
        picture.save(image)
    return made


def workers() -> set[psutil.Process]:
    """The children of this process that read pages."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "loraloop.ocr.worker" in child.cmdline():
                found.add(child)
    return found


def worker(before: set[psutil.Process]) -> psutil.Process:
    """The one that was not there before, as soon as it is there: other tests may have left theirs."""
    return until(lambda: workers() - before, "a worker that reads", pause=0.001).pop()


def test_a_killed_worker_costs_its_page_alone(images):
    """SIGKILL takes the page that was being read; a new worker reads the others, and nothing outlives the reading."""
    before, killed = workers(), []

    def handed_out() -> Iterator[Path]:
        for image in images:
            yield image
            if not killed:  # asked for the next image, the pool has handed the first one out
                killed.append(worker(before))
                os.kill(killed[0].pid, signal.SIGKILL)

    pages = list(Tesseract(cache=None, workers=1).read(handed_out()))
    assert [page.status for page in pages] == ["quarantined", "ok", "ok", "ok"]
    assert pages[0].reason.startswith("the worker died (exit status -9)")
    assert [page.text for page in pages] == ["", TEXT, TEXT, TEXT]
    assert not workers() - before
