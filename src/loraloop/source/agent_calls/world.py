"""The names and values of a made-up world: what stands on its panels, in its vaults and folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_STARTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_SYLLABLES = tuple(start + vowel for start in _STARTS for vowel in _VOWELS)
_NAMES = len(_SYLLABLES) ** 3
_SPREAD = 211_987  # coprime to the number of names, so that no name comes twice before all have come
PER_WORLD = 128
WORLDS = _NAMES // PER_WORLD
"""Seeds after which the names come again."""
_STATES = ("door shut", "door open", "pump on", "pump off", "all clear", "no power", "water low", "heat high")
_ENDINGS = ("txt", "log", "csv")


@dataclass(frozen=True, slots=True)
class World:
    """Draws of one world; no two worlds of :data:`WORLDS` seeds in a row share a name."""

    seed: int
    rng: np.random.Generator

    def names(self, count: int) -> list[str]:
        """Different names of this world, such as ``mipora``."""
        drawn = self.rng.choice(PER_WORLD, count, replace=False)
        return [_name((self.seed % WORLDS) * PER_WORLD + int(each)) for each in drawn]

    def code(self) -> int:
        """A vault's code of four digits."""
        return int(self.rng.integers(1000, 10_000))

    def flips(self) -> str:
        """Four to seven coin flips."""
        return "".join(self.rng.choice(["H", "T"], int(self.rng.integers(4, 8))))

    def state(self) -> str:
        """What a panel shows that has no code."""
        return self.one_of(_STATES)

    def files(self) -> list[str]:
        """One to three files of a folder."""
        return [f"{name}.{self.one_of(_ENDINGS)}" for name in self.names(int(self.rng.integers(1, 4)))]

    def one_of(self, choices: Sequence[str]) -> str:
        """One of ``choices``."""
        return choices[int(self.rng.integers(len(choices)))]

    def say(self, phrasings: Sequence[str], **values: object) -> str:
        """One of ``phrasings`` with its values filled in."""
        return self.one_of(phrasings).format(**values)


def _name(number: int) -> str:
    left, third = divmod(number * _SPREAD % _NAMES, len(_SYLLABLES))
    first, second = divmod(left, len(_SYLLABLES))
    return _SYLLABLES[first] + _SYLLABLES[second] + _SYLLABLES[third]
