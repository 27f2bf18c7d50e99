"""The images of a vault source: found on disk with their sidecars, drawn, or copied with small damage."""

from __future__ import annotations

import glob
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloop.core import atomic, leaves, transparency
from loraloop.core.hashing import sha256, sha256_json
from loraloop.core.progress import track
from loraloop.errors import DataError
from loraloop.source.vault import degrade, drawing, fonts
from loraloop.source.vault.degrade import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".jp2", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".pdf", ".heic", ".avif"}
)
"""Ends of the names of files to read; of those that the reader does not take, it says why."""
SOURCES = (
    *(Path(__file__).with_name(f"{name}.py") for name in ("drawing", "safe", "screen", "degrade", "fonts", "pictures")),
    Path(transparency.__file__),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to read.

    Attributes:
        index: Place among all images of the source, copies aside.
        truth: The text that is on it, where that is known.
        copy: 0 for the image itself, from 1 for its augmented copies.
    """

    path: Path
    index: int
    truth: str | None
    copy: int = 0


def find(path: str) -> list[Path]:
    """The images that a file, a folder (with those in it) or a glob stands for, in a fixed order.

    A file is taken by whatever name; a folder or glob gives the files whose names end like an image's. A TIFF or PDF of
    several pages gives each as ``FILE#1``, ``FILE#2`` and so on.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return leaves.apart(place)
    # A Path's own glob refuses absolute patterns.
    inside = place.rglob("*") if place.is_dir() else map(Path, glob.glob(str(place), recursive=True))  # noqa: PTH207
    files = sorted(
        one for one in inside if one.suffix.lower() in SUFFIXES and not one.name.startswith(".") and not one.is_dir()
    )
    return [page for file in files for page in leaves.apart(file)]


def beside(image: Path) -> Path:
    """Where the true text of an image is looked for: ``NAME.txt``, for a page of several ``NAME#2.txt``."""
    file, number = leaves.located(image)
    return file.with_suffix(".txt") if number is None else file.with_name(f"{file.stem}#{number}.txt")


def sidecar(image: Path) -> str | None:
    """The true text of an image from ``NAME.txt`` beside it (:func:`beside`), or ``None`` where there is no such file.

    Raises:
        DataError: The file is there but empty, unreadable or not UTF-8.
    """
    file = beside(image)
    if not file.exists():
        return None
    try:
        text = file.read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"its true text {file.name} cannot be read: {error}") from error
    if not text:
        raise DataError(f"its true text {file.name} is empty: write the text or remove the file")
    return text


def drawn(folder: Path, seed: int, count: int, looks: Sequence[drawing.Look]) -> list[Path]:
    """Synthetic vaults as PNGs with sidecars below ``folder``: drawn once, reused while nothing they depend on changed.

    Args:
        folder: Parent of one folder per settings.
        seed: Seed of the drawings.
        count: Number of vaults.
        looks: Looks, taken in turn.
    """
    target = folder / _digest(seed=seed, count=count, looks=looks, faces=fonts.found(drawing.PLAIN.faces), code=_code())
    names = [f"{index:05d}-{looks[index % len(looks)]}" for index in range(count)]
    try:
        with atomic.folder(target) as beside:
            for index, name in enumerate(track(names, "drawing vaults", "vault", count)):
                vault = drawing.draw(seed, index, looks[index % len(looks)])
                (beside / f"{name}.png").write_bytes(png(vault.pixels))
                (beside / f"{name}.txt").write_text(vault.text + "\n", "utf-8")
    except OSError:
        # They are there, or another run has just finished the same ones: the first whole folder stays.
        if not target.exists():
            raise
    return [target / f"{name}.png" for name in names]


def copied(picture: Picture, copy: int, folder: Path, seed: int, degrees: float, noise: float) -> Picture:
    """A copy of ``picture`` turned by up to ``degrees`` either way, with Gaussian noise of up to ``noise`` grey levels.

    The same (seed, index, copy) damages the same image in the same way; the file below ``folder`` is made once.
    """
    key = _digest(
        image=[sha256(leaves.located(picture.path)[0]), leaves.located(picture.path)[1]],
        place=(seed, picture.index, copy),
        degrees=degrees,
        noise=noise,
        code=_code(),
    )
    file = folder / f"{key}.png"
    if not file.exists():
        rng = np.random.default_rng([seed, picture.index, copy])
        turned = degrade.rotate(_decode(picture.path), float(rng.uniform(-degrees, degrees)))
        with atomic.write(file) as stream:
            stream.write(png(degrade.noise(turned, float(rng.uniform(0, noise)), rng)))
    return replace(picture, path=file, copy=copy)


def _decode(path: Path) -> Pixels:
    from PIL import Image

    file, number = leaves.located(path)
    if file.suffix.lower() == leaves.PDF:
        return np.asarray(leaves.pdf_image(file, number or 1))
    with Image.open(file) as image:
        image.seek((number or 1) - 1)
        return _upright(image)


def _upright(image: Image) -> Pixels:
    from PIL import ImageOps

    return np.asarray(transparency.opaque(ImageOps.exif_transpose(image)).convert("RGB"))


def png(pixels: Pixels) -> bytes:
    """An RGB or grey picture as a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _digest(**settings: Any) -> str:
    return sha256_json(settings)[:16]


@cache
def _code() -> str:
    """Hash of the source that makes the images: a change to it makes earlier ones stale."""
    return sha256(b"".join(file.read_bytes() for file in SOURCES))
