"""Which engines this machine has, where Tesseract's language data lies, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from loraloop.errors import MissingDependencyError

Tesseract = Literal["tesserocr", "pytesseract"]

PROGRAM = "tesseract"


def tesseract(wanted: Literal["auto"] | Tesseract, language: str) -> Tesseract:
    """The way to Tesseract that is taken; ``auto`` prefers its library (tesserocr) to its program (pytesseract).

    Raises:
        MissingDependencyError: It, or data of ``language``, is not installed; the message holds the install line.
    """
    if wanted == "tesserocr" and not _importable("tesserocr"):
        raise MissingDependencyError("ocr.engine=tesserocr is not installed: pip install 'loraloop[tesserocr]'")
    library = wanted != "pytesseract" and _importable("tesserocr")
    if not shutil.which(PROGRAM) and not (library and os.environ.get("TESSDATA_PREFIX")):
        raise MissingDependencyError(
            "ocr: the program tesseract is not on the PATH: `apt-get install tesseract-ocr` (Debian, Ubuntu) "
            "or `brew install tesseract` (macOS)"
        )
    there = _languages()
    missing = [name for name in language.split("+") if name not in there]
    if missing:
        packages = " ".join(f"tesseract-ocr-{name.replace('_', '-')}" for name in missing)
        raise MissingDependencyError(
            f"ocr.language={language!r}: Tesseract has no data for {', '.join(missing)} (there is: "
            f"{', '.join(there)}): `apt-get install {packages}` or `brew install tesseract-lang`"
        )
    return "tesserocr" if library else "pytesseract"


def tesseract_name(way: Tesseract) -> str:
    """Engine and version, such as ``tesseract 5.5.4 (tesserocr)``: library and program may differ in version."""
    if way == "tesserocr":
        import tesserocr

        said = tesserocr.tesseract_version()
    else:
        said = _say("--version")
    found = re.search(r"tesseract v?(\S+)", said)
    return f"tesseract {found[1] if found else 'unknown'} ({way})"


def data() -> str:
    """Folder of the language data: ``TESSDATA_PREFIX``, or where the program says that it looks."""
    said = re.search(r'"(.+)"', _say("--list-langs").partition("\n")[0]) if shutil.which(PROGRAM) else None
    return os.environ.get("TESSDATA_PREFIX") or (said[1] if said else "")


def rapidocr(key: str) -> None:
    """Look for RapidOCR and its runtime on behalf of the configuration's ``key``.

    Raises:
        MissingDependencyError: One of them is not installed.
    """
    if not _importable("rapidocr") or not _importable("onnxruntime"):
        raise MissingDependencyError(f"{key}: rapidocr is not installed: pip install 'loraloop[rapidocr]'")


def rapidocr_name() -> str:
    """Engine and version."""
    return f"rapidocr {version('rapidocr')}"


def _languages() -> list[str]:
    if shutil.which(PROGRAM):
        return _say("--list-langs").split("\n")[1:]
    return sorted(file.stem for file in Path(data()).glob("*.traineddata"))


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _say(option: str) -> str:
    return subprocess.run([PROGRAM, option], capture_output=True, text=True, check=False).stdout.strip()
