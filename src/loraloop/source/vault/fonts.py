"""The fonts of drawn pictures: free ones that this machine has, found by name and never bundled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

Font: TypeAlias = "FreeTypeFont | ImageFont"

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
PLAIN = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif",
    "LiberationSans-Regular", "LiberationSans-Bold", "LiberationMono-Regular", "LiberationSerif-Regular",
)  # fmt: skip
MORE = ("FreeSans", "FreeSansBold", "FreeSerif", "OpenSans-Regular", "OpenSans-Semibold", "LiberationSerif-Bold")
OTHERS = ("Carlito-Regular", "Carlito-Bold", "Caladea-Regular", "Hack-Regular", "Roboto-Regular", "Roboto-Medium")
"""Faces that only the held-out half of the test set has; see :mod:`loraloop.source.vault.benchmark_data`."""


@cache
def found(names: Sequence[str]) -> tuple[str, ...]:
    """Files of the faces ``names`` that this machine has, in the order of the names."""
    files = {path.stem: str(path) for folder in FOLDERS for path in sorted(Path(folder).expanduser().rglob("*.ttf"))}
    return tuple(files[name] for name in names if name in files)


def font(names: Sequence[str], choice: int, size: int) -> Font:
    """The face number ``choice``, counted around, of those found among ``names``; Pillow's own where there is none."""
    from PIL import ImageFont

    files = found(tuple(names))
    return ImageFont.truetype(files[choice % len(files)], size) if files else ImageFont.load_default(size)
