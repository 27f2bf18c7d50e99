"""The benchmark's tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraloop.core import console


def show(report: Mapping[str, Any]) -> None:
    """Print the tables of a benchmark."""
    print(f"half {report['half']}, in {', '.join(Path(face).stem for face in report['fonts']) or 'the built-in face'}")
    if errors := report["pictures"]:
        _transposed("pictures: characters wrong, %; and share of pictures above 95%", errors, 100, 2)
    if words := report["documents"]:
        _transposed("documents: word F1; the least: of any page, against plain Tesseract's better mode", words, 1, 3)
    if speed := report["speed"]:
        rates = speed["images_per_second"]
        default, limited, *_ = rates.values()
        rows = [[name, f"{rate:.2f}", f"{rate / default:.1f}", f"{rate / limited:.1f}"] for name, rate in rates.items()]
        console.table("speed, file to words", ["engine", "images/s", "x default", "x OMP=1"], rows)
        print(f"preprocessing takes {speed['preprocessing_share']:.0%} of the time; load {speed['load_average']:.1f}")


def _transposed(title: str, results: Mapping[str, Mapping[str, float]], factor: float, digits: int) -> None:
    rows = [
        [kind, *(f"{factor * row[kind]:.{digits}f}" for row in results.values())]
        for kind in next(iter(results.values()))
    ]
    console.table(title, ["", *results], rows)
