"""Accuracy and speed of OCR: ``loraloop stage=ocr_bench`` on the held-out half, with the machine described.

Run it as ``python benchmarks/ocr.py``; it takes some minutes and writes ``benchmarks/results/ocr.json``.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe

from loraloop.ocr import installed

RESULT = Path(__file__).parent / "results" / "ocr.json"
SIZES = {"held_out": ("pictures=40", "documents=20", "timed=10")}


def measure(half: str, *sizes: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "loraloop", "stage=ocr_bench", f"half={half}", *sizes]
        subprocess.run([*command, f"hydra.run.dir={folder}"], check=True, cwd=folder)
        return json.loads((Path(folder) / "ocr_bench.json").read_text())


def main() -> None:
    machine = describe("tesserocr", "pytesseract", "rapidocr", "opencv-python-headless")
    engines = [installed.tesseract_name("tesserocr"), installed.tesseract_name("pytesseract")]
    halves = {half: measure(half, *sizes) for half, sizes in SIZES.items()}
    report = {**machine, "engines": engines, "sizes": SIZES, **halves}
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
