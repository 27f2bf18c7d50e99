"""Coin flips: seeded sequences and five tasks to learn on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from loraloop.core import atomic, tables
from loraloop.core.part import part
from loraloop.errors import ConfigError
from loraloop.protocols import Ocr
from loraloop.records import Collection, Example, Provenance
from loraloop.source.answers import same

Bits = npt.NDArray[np.uint8]
"""Flips as [rows, flips]: 1 is heads, 0 is tails."""
Task = Literal["count", "simulate", "parity", "longest_run", "unlock"]

KEY_FLIPS = 32
MOST_FLIPS = 100_000_000
HEADS_TAILS = {"HT": "HT", "01": "10"}


def draw(rng: np.random.Generator, rows: int, flips: int, p: float = 0.5) -> Bits:
    """Flip ``rows`` sequences of ``flips`` coins that show heads with probability ``p``.

    A fair coin costs one random bit, any other 32, which resolve ``p`` to 2e-10.
    """
    if p == 0.5:
        width = -(-flips // 8)
        packed = np.frombuffer(rng.bytes(rows * width), np.uint8)
        return np.unpackbits(packed).reshape(rows, width * 8)[:, :flips]
    words = rng.integers(0, 2**64, -(-rows * flips // 2), dtype=np.uint64).view(np.uint32)
    return (words[: rows * flips].reshape(rows, flips) < round(p * 2**32)).view(np.uint8)


def spell(bits: Bits, symbols: str = "HT") -> list[str]:
    """Write every row as text: ``HT`` or, for ``symbols="01"``, 1 for heads and 0 for tails."""
    heads, tails = (ord(symbol) for symbol in HEADS_TAILS[symbols])
    rows, flips = bits.shape
    # One decode and one split over all rows: a slice or a join per row is several times slower.
    lines = np.full((rows, flips + 1), ord("\n"), np.uint8)
    np.add(np.uint8(tails), bits * np.uint8((heads - tails) % 256), out=lines[:, :flips])
    return str(lines.data, "ascii").split("\n")[:-1]


def code(flips: str) -> str:
    """The vault code that 32 flips spell: ``H`` or 1 is a one, the first flip the highest bit, the digits hexadecimal.

    >>> code("THTHTHTH" * 4)
    '5555-5555'
    """
    digits = f"{int(flips.translate(str.maketrans('HT', '10')), 2):08X}"
    return f"{digits[:4]}-{digits[4:]}"


def longest_runs(bits: Bits) -> npt.NDArray[np.int64]:
    """Length of the longest run of equal flips in every row."""
    run = np.ones(len(bits), np.int64)
    longest = run.copy()
    for i in range(1, bits.shape[1]):
        run = np.where(bits[:, i] == bits[:, i - 1], run + 1, 1)
        np.maximum(longest, run, out=longest)
    return longest


def _counts(bits: Bits, strings: Sequence[str]) -> list[str]:
    return [f"{heads} heads, {bits.shape[1] - heads} tails" for heads in bits.sum(axis=1).tolist()]


def _sequences(bits: Bits, strings: Sequence[str]) -> list[str]:
    return [f"{flips}: {counts}" for flips, counts in zip(strings, _counts(bits, strings), strict=True)]


def _parities(bits: Bits, strings: Sequence[str]) -> list[str]:
    return ["odd" if odd else "even" for odd in (bits.sum(axis=1) % 2).tolist()]


def _runs(bits: Bits, strings: Sequence[str]) -> list[str]:
    return [str(length) for length in longest_runs(bits).tolist()]


def _codes(bits: Bits, strings: Sequence[str]) -> list[str]:
    return [code(flips) for flips in strings]


TASKS: dict[str, tuple[str, Callable[[Bits, Sequence[str]], list[str]]]] = {
    "count": ("Count the heads and tails.", _counts),
    "simulate": ("Flip a coin {flips} times.", _sequences),
    "parity": ("Is the number of heads even or odd?", _parities),
    "longest_run": ("How long is the longest run of equal flips?", _runs),
    "unlock": ("Unlock the vault with this key.", _codes),
}
"""Instruction and outputs of every task."""

_SIMULATED = re.compile(r"\s*(?:([HT]+)|([01]+)): (\d+) heads, (\d+) tails\.?\s*")


def _lengths(simulated: re.Match[str]) -> tuple[int, int]:
    """Number of flips written as letters and as digits; one of them is 0."""
    return len(simulated[1] or ""), len(simulated[2] or "")


def _counts_right(simulated: re.Match[str]) -> bool:
    flips = simulated[1] or simulated[2]
    heads = flips.count("H") + flips.count("1")
    return (int(simulated[3]), int(simulated[4])) == (heads, len(flips) - heads)


@part
class Flips:
    """Seeded coin flips; row ``i`` gets task ``i mod len(tasks)``, so every task gets its equal share.

    A longer collection (more ``runs``) begins with the same flips as a shorter one. The input of a ``simulate`` row is
    its place (``Run 3, sequence 7.``), which keeps the rows apart in a split and lets greedy decoding vary.
    """

    SCREENED = True  # everything is made up

    flips: Annotated[int, Field(ge=1, le=1024)] = 32
    runs: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    per_run: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    seed: Annotated[int, Field(ge=0)] = 0
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = ("count",)
    symbols: Literal["HT", "01"] = "HT"
    log: Path | None = None

    @model_validator(mode="after")
    def _fits(self) -> Flips:
        total = self.runs * self.per_run * self.flips
        if total > MOST_FLIPS:
            raise ValueError(
                f"runs x per_run x flips is {total:,}, at most {MOST_FLIPS:,} flips fit in memory: lower one of them"
            )
        if "unlock" in self.tasks and self.flips != KEY_FLIPS:
            raise ValueError(
                f"the task unlock reads {KEY_FLIPS} flips as a 32-bit key, flips is {self.flips}: "
                f"set flips={KEY_FLIPS} or take unlock out of tasks"
            )
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks names one twice: {', '.join(self.tasks)}; name each once, they get equal shares")
        if self.log is not None and self.log.suffix != ".csv":
            raise ValueError(f"log={self.log}: the log is a CSV file, so its name ends in .csv: write {self.log}.csv")
        return self

    def check(self) -> None:
        """Refuse a log that is a folder."""
        if self.log is not None and self.log.is_dir():
            raise ConfigError(
                f"source.log={self.log} is a folder: name a .csv file in it, such as {self.log}/flips.csv"
            )

    def collect(self, ocr: Ocr | None) -> Collection:
        """Flip all coins and, when ``log`` is set, write its per-flip log.

        Raises:
            DataError: The log cannot be written.
        """
        bits = draw(np.random.default_rng(self.seed), self.runs * self.per_run, self.flips, self.p)
        strings = spell(bits, self.symbols)
        if self.log is not None:
            self._write_log(self.log, strings)
        kinds = len(self.tasks)
        outputs = [TASKS[task][1](bits[i::kinds], strings[i::kinds]) for i, task in enumerate(self.tasks)]
        return Collection(
            tuple(self._example(i, flips, outputs[i % kinds][i // kinds]) for i, flips in enumerate(strings))
        )

    def correct(self, example: Example, answer: str) -> bool:
        """A simulation is right when it has the asked number of flips and counts them right; the rest must be equal."""
        if example.task != "simulate":
            return same(example.output, answer)
        asked, given = _SIMULATED.fullmatch(example.output), _SIMULATED.fullmatch(answer)
        return asked is not None and given is not None and _lengths(given) == _lengths(asked) and _counts_right(given)

    def _example(self, index: int, flips: str, output: str) -> Example:
        task = self.tasks[index % len(self.tasks)]
        run, sequence = divmod(index, self.per_run)
        return Example.one_turn(
            instruction=TASKS[task][0].format(flips=self.flips),
            input=f"Run {run + 1}, sequence {sequence + 1}." if task == "simulate" else flips,
            output=output,
            task=task,
            provenance=Provenance(source="flips", seed=self.seed, index=index),
        )

    def _write_log(self, path: Path, strings: Sequence[str]) -> None:
        with tables.writing(path), atomic.write(path) as stream:
            stream.write(b"run,sequence,flip,result\n")
            for index, flips in enumerate(strings):
                run, sequence = divmod(index, self.per_run)
                place = f"{run + 1},{sequence + 1}"
                stream.write("".join(f"{place},{n},{flip}\n" for n, flip in enumerate(flips, 1)).encode())
