"""What a sweep searches, key by key, in words of neither Hydra nor Optuna."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values.

    Attributes:
        values: What the study keeps.
        texts: How each value is written in an override.
    """

    values: tuple[Scalar, ...]
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("there is nothing to choose from: choice(A,B,...)")

    def distribution(self) -> BaseDistribution:
        """Optuna's form."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def text(self, value: Any) -> str:
        """How ``value`` is written in an override."""
        return self.texts[self.values.index(value)]

    def probes(self) -> tuple[str, ...]:
        """Values on which a job's configuration is tried: every one."""
        return self.texts

    def grid(self) -> tuple[Scalar, ...] | None:
        """Every value."""
        return self.values

    def __str__(self) -> str:
        return f"choice({','.join(self.texts)})"


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers from ``low`` to ``high``, both included.

    Attributes:
        step: Distance of neighbours from ``low`` on; ``None`` for every number between.
        log: Whether magnitudes are equally likely instead of numbers.
        integer: Whether there are only integers.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("both ends are finite numbers")
        if self.low > self.high:
            raise ValueError(f"the lower end comes first: {self.high:g} before {self.low:g}")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"the step is {self.step:g} and must be above 0")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic scale begins above 0, not at {self.low:g}")
        if self.log and self.step not in (None, 1):
            raise ValueError(f"a logarithmic scale has no step, here {self.step:g}")

    def distribution(self) -> BaseDistribution:
        """Optuna's form."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self._last), step=int(self.step or 1), log=self.log)
        return FloatDistribution(float(self.low), float(self._last), step=self.step, log=self.log)

    def text(self, value: Any) -> str:
        """How ``value`` is written in an override."""
        return repr(int(value) if self.integer else float(value))

    def probes(self) -> tuple[str, ...]:
        """Values on which a job's configuration is tried: both ends, and between them where all is searched."""
        # The golden section of round ends is no round number, which a key of integers would take.
        between = [] if self.integer or self.step else [self.low + (self.high - self.low) * 0.381966]
        return tuple(dict.fromkeys(self.text(value) for value in (self.low, *between, self._last)))

    def grid(self) -> tuple[Scalar, ...] | None:
        """Every value, if they can be counted."""
        if self.step is None and not self.integer:
            return None
        step, low = self._exact_step, Decimal(str(self.low))
        values = [low + index * step for index in range(self._count)]
        return tuple(int(value) if self.integer else float(value) for value in values)

    @property
    def _exact_step(self) -> Decimal:
        return Decimal(str(self.step or 1))

    @property
    def _count(self) -> int:
        return int((Decimal(str(self.high)) - Decimal(str(self.low))) // self._exact_step) + 1

    @property
    def _last(self) -> float:
        if self.step is None:
            return self.high
        return float(Decimal(str(self.low)) + (self._count - 1) * self._exact_step)

    def __str__(self) -> str:
        ends = f"{self.text(self.low)},{self.text(self.high)}"
        if self.step is not None:
            words = f"range({ends},{self.text(self.step)})"
        else:
            words = f"int(interval({ends}))" if self.integer else f"interval({ends})"
        return f"tag(log,{words})" if self.log else words


Dimension = Choice | Numbers
Space = Mapping[str, Dimension]


def grid(space: Space) -> list[dict[str, Scalar]]:
    """Every combination of a space.

    Raises:
        ValueError: A dimension has no countable values; the message names it.
    """
    columns: list[tuple[Scalar, ...]] = []
    for key, dimension in space.items():
        values = dimension.grid()
        if values is None:
            raise ValueError(f"{key}={dimension} has no countable values: choice(A,B,...) or range(FROM,TO,STEP)")
        columns.append(values)
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*columns)]
