"""The engines and settings that the benchmark compares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.ocr.rapid import RapidOcr
from loraloop.ocr.tesseract import Tesseract

if TYPE_CHECKING:
    from loraloop.protocols import Ocr

BASELINES = ("plain, psm 3", "plain, psm 6")
"""Engines of :func:`for_documents` without preprocessing, with which the others are compared."""
NO_LIMIT = 64
"""Threads; Tesseract never starts as many."""


def default() -> Tesseract:
    """``ocr=tesseract_psm6`` without a cache, so that every page is read."""
    return Tesseract(cache=None, timeout_seconds=600)


def for_pictures() -> dict[str, Ocr]:
    """What reads degraded pictures, by name."""
    ours, plain = default(), _plain()
    return {
        "grey": plain,
        "Otsu": replace(plain, threshold="otsu"),
        "adaptive": replace(plain, threshold="adaptive"),
        "tesseract_psm6": ours,
        "tesseract_auto": replace(ours, psm="auto"),
        "psm6 + Otsu": replace(ours, threshold="otsu"),
        "rapidocr": _rapid(),
    }


def for_documents() -> dict[str, Ocr]:
    """What reads office pages, by name."""
    ours, plain = default(), _plain()
    return {
        "plain, psm 3": replace(plain, psm=3),
        "plain, psm 6": plain,
        "tesseract_psm6": ours,
        "tesseract_psm3": replace(ours, psm=3),
        "tesseract_auto": replace(ours, psm="auto"),
        "rapidocr": _rapid(),
    }


def for_speed() -> dict[str, tuple[Tesseract, int]]:
    """What is timed, each with how often it reads the same pictures: the slow ones less often."""
    ours = default()
    return {
        "pytesseract, its default threads": (replace(ours, engine="pytesseract", workers=1, threads=NO_LIMIT), 1),
        "pytesseract, OMP_THREAD_LIMIT=1": (replace(ours, engine="pytesseract", workers=1), 1),
        "tesseract_psm6, 1 worker": (replace(ours, workers=1), 2),
        "tesseract_psm6, 2 workers": (replace(ours, workers=2), 3),
        "tesseract_auto, 2 workers": (replace(ours, psm="auto", workers=2), 3),
    }


def _plain() -> Tesseract:
    """Tesseract without preprocessing."""
    return replace(default(), invert=False, denoise=False, normalize=False, deskew=False, upscale=False, unrule=False)


def _rapid() -> RapidOcr:
    return RapidOcr(cache=None, timeout_seconds=600)
