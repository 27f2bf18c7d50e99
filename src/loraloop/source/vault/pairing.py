"""What is learned from a page: its clean text, the text that flips spell, or a count of the flips on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loraloop.source.vault.pictures import Picture

Pairing = Literal["denoise", "flips", "count"]

FLIPS = 32
_FLIPS_LINE = re.compile(r"[HT][HT ]*")


@dataclass(frozen=True, slots=True)
class Pair:
    """Instruction, input and output of one example."""

    instruction: str
    input: str
    output: str


def flips_of(truth: str | None) -> str:
    """The flips written on a vault: its lines of nothing but ``H``, ``T`` and spaces; empty where there are none."""
    lines = [line.strip() for line in (truth or "").splitlines()]
    return "".join(line for line in lines if _FLIPS_LINE.fullmatch(line)).replace(" ", "")


def _denoise(picture: Picture, read: str, seed: int) -> Pair | None:
    if picture.truth is None:
        return None
    return Pair("Correct the text read from this vault.", read, picture.truth)


def _flips(picture: Picture, read: str, seed: int) -> Pair:
    flips = flips_of(picture.truth)
    if not flips:
        rng = np.random.default_rng([seed, picture.index, picture.copy])
        flips = "".join("TH"[bit] for bit in rng.integers(0, 2, FLIPS))
    return Pair("Write the text of the vault with these flips.", flips, picture.truth or read)


def _count(picture: Picture, read: str, seed: int) -> Pair | None:
    flips = flips_of(picture.truth)
    if not flips:
        return None
    return Pair("Read this vault and count heads.", read, f"{flips.count('H')} heads, {flips.count('T')} tails")


PAIRINGS: dict[Pairing, Callable[[Picture, str, int], Pair | None]] = {
    "denoise": _denoise,
    "flips": _flips,
    "count": _count,
}
"""From a picture, the text read from it and the seed to a pair; ``None`` where the truth does not allow it."""
