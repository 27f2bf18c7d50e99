"""Several sources in fixed shares."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Annotated

import numpy as np
from pydantic import Field, SkipValidation, model_validator

from loraloop.core.part import part
from loraloop.errors import ConfigError, DataError
from loraloop.protocols import Ocr, Source
from loraloop.records import Collection, Example
from loraloop.source import screening

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def shares(weights: dict[str, float], rows: int) -> dict[str, int]:
    """Split ``rows`` by ``weights`` with the largest-remainder (Hamilton) method: the counts add up to ``rows``.

    Ties go to the earlier name. Decimal weights are taken as written, so 0.6 of 5 is 3.
    """
    exact = _exact(weights, rows)
    counts = {name: floor(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: rows - sum(counts.values())]:
        counts[name] += 1
    return counts


def _exact(weights: dict[str, float], rows: int) -> dict[str, Fraction]:
    parts = {name: Fraction(str(weight)) for name, weight in weights.items()}
    total = sum(parts.values())
    return {name: rows * part / total for name, part in parts.items()}


@part
class Mixed:
    """Draws from every source without replacement, in the shares of the weights, shuffled by ``seed``.

    An example remembers the source that made it: ``provenance.source`` begins with the source's name here.
    """

    SCREENED = True  # each of its sources is

    sources: Annotated[dict[str, SkipValidation[Source]], Field(min_length=1)]
    weights: dict[str, Weight]
    rows: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _weighted(self) -> Mixed:
        if self.sources.keys() != self.weights.keys():
            raise ValueError(
                f"weights has {', '.join(self.weights)} and sources has {', '.join(self.sources)}: "
                "every source needs one weight, and every weight a source"
            )
        return self

    def check(self) -> None:
        """Check every source that can be checked, and show all their problems at once."""
        problems: list[str] = []
        for name, source in self.sources.items():
            check = getattr(source, "check", None)
            if check is not None:
                try:
                    with self._within(name):
                        check()
                except ConfigError as error:
                    problems += error.problems
        if problems:
            raise ConfigError(*problems)

    def collect(self, ocr: Ocr | None) -> Collection:
        """Collect from every source and mix; everything that a source set aside is passed on.

        Raises:
            DataError: A source has nothing usable, or fewer examples than its share of ``rows``.
        """
        collected = {name: self._collect(name, ocr) for name in self.sources}
        counts = self._counts({name: len(one.examples) for name, one in collected.items()})
        rng = np.random.default_rng(self.seed)
        drawn = [
            _named(name, one.examples[i])
            for name, one in collected.items()
            for i in rng.permutation(len(one.examples))[: counts[name]].tolist()
        ]
        order = rng.permutation(len(drawn)).tolist()
        aside = tuple(item for one in collected.values() for item in one.quarantined)
        return Collection(tuple(drawn[i] for i in order), aside)

    def correct(self, example: Example, answer: str) -> bool:
        """Ask the source that made the example.

        Raises:
            DataError: None of the sources made it.
        """
        name, _, rest = example.provenance.source.partition("/")
        if name not in self.sources:
            raise DataError(
                f"an example of the source {example.provenance.source!r} is not from this mix of "
                f"{', '.join(self.sources)}: judge it with the source that made it"
            )
        provenance = replace(example.provenance, source=rest or name)
        return self.sources[name].correct(replace(example, provenance=provenance), answer)

    def _collect(self, name: str, ocr: Ocr | None) -> Collection:
        with self._within(name):
            return screening.collect(self.sources[name], ocr)

    def _counts(self, available: dict[str, int]) -> dict[str, int]:
        """How many examples of each source to take: ``rows`` in all, or as many as keep the shares."""
        one = _exact(self.weights, 1)
        most = min(floor(available[name] / share) for name, share in one.items())
        rows = most if self.rows is None else self.rows
        counts = shares(self.weights, rows)
        short = [name for name in counts if counts[name] > available[name]]
        if short:
            wanted = ", ".join(f"{name} {counts[name]} (has {available[name]})" for name in short)
            raise DataError(
                f"source.rows={rows} needs more examples than there are: {wanted}. "
                f"Set source.rows={most} or null, or let these sources make more"
            )
        return counts

    @contextlib.contextmanager
    def _within(self, name: str) -> Iterator[None]:
        """Let a source's messages name its keys where they stand here: ``source.sources.NAME.path``."""
        keys = "|".join(getattr(self.sources[name], "__dataclass_fields__", ()))
        pattern, here = rf"\bsource\.({keys})\b", rf"source.sources.{name}.\1"
        try:
            yield
        except ConfigError as error:
            raise ConfigError(*(re.sub(pattern, here, problem) for problem in error.problems)) from error
        except DataError as error:
            raise DataError(re.sub(pattern, here, str(error))) from error


def _named(name: str, example: Example) -> Example:
    made_by = example.provenance.source
    source = name if made_by == name else f"{name}/{made_by}"
    return replace(example, provenance=replace(example.provenance, source=source))
