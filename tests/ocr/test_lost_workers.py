"""Real workers with the real engine, killed while they read."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from loraloop.ocr.tesseract import Tesseract

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


def worker() -> psutil.Process:
    """The one child of this process that reads pages, as soon as it is there."""
    while True:
        for child in psutil.Process().children():
            if "loraloop.ocr.worker" in child.cmdline():
                return child


def test_a_killed_worker_costs_its_page_alone(images):
    """SIGKILL takes the page that was being read; a new worker reads the others, and nothing outlives the reading."""
    killed: list[psutil.Process] = []

    def handed_out() -> Iterator[Path]:
        for image in images:
            yield image
            if not killed:  # asked for the next image, the pool has handed the first one out
                killed.append(worker())
                os.kill(killed[0].pid, signal.SIGKILL)

    pages = list(Tesseract(cache=None, workers=1).read(handed_out()))
    assert [page.status for page in pages] == ["quarantined", "ok", "ok", "ok"]
    assert pages[0].reason.startswith("the worker died (exit status -9)")
    assert [page.text for page in pages] == ["", TEXT, TEXT, TEXT]
    assert not [child for child in psutil.Process().children() if child.cmdline()[-2:-1] == ["loraloop.ocr.worker"]]
