"""What a job gave back, as the state that its trial ends in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loraloop.core.exhausted import ExhaustedError
from loraloop.core.passwords import mask
from loraloop.errors import LoraloopError, PrunedError

State = Literal["COMPLETE", "PRUNED", "FAIL"]


class LostTogetherError(ChildProcessError):
    """Jobs of a batch were lost at once, and nobody knows which one of them ended the others."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a trial ended.

    Attributes:
        reason: Why it has no value.
        again: Whether the same parameters may well succeed a second time.
        together: Whether another trial of the batch may be to blame.
    """

    state: State
    values: tuple[float, ...] | None = None
    reason: str = ""
    again: bool = False
    together: bool = False


def judge(returned: object, objectives: int) -> Ending:
    """The outcome of a job from what it returned or raised.

    An error that loraloop raises on purpose, and a value that cannot be compared, come again with the same
    parameters; any other exception may have been the machine's fault.

    Args:
        returned: A number, as many numbers as there are objectives, or an exception.
        objectives: How many values the study compares.
    """
    from optuna.exceptions import TrialPruned

    if isinstance(returned, (PrunedError, TrialPruned)):
        return Ending("PRUNED", reason=str(returned))
    if isinstance(returned, ExhaustedError):  # others may have had the memory or the disk for a moment
        return Ending("FAIL", reason=mask(str(returned)), again=True)
    if isinstance(returned, LoraloopError):
        return Ending("FAIL", reason=mask(str(returned)))
    if isinstance(returned, BaseException):
        together = isinstance(returned, LostTogetherError)
        return Ending("FAIL", reason=mask(f"{type(returned).__name__}: {returned}"), again=True, together=together)
    try:
        values = _numbers(returned, objectives)
    except (TypeError, ValueError):
        wanted = "a number" if objectives == 1 else f"{objectives} numbers"
        return Ending("FAIL", reason=f"the job returned {returned!r} instead of {wanted}")
    if any(math.isnan(value) for value in values):
        return Ending("FAIL", reason=f"the job returned {returned!r}, which cannot be compared")
    return Ending("COMPLETE", values)


def _numbers(returned: object, objectives: int) -> tuple[float, ...]:
    if objectives == 1:
        return (float(returned),)  # type: ignore[arg-type]
    if not isinstance(returned, Sequence) or isinstance(returned, str) or len(returned) != objectives:
        raise TypeError
    return tuple(float(value) for value in returned)
