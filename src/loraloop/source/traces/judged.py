"""From what people said of an answer to stars and a correction; what judges and code said makes neither."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from loraloop.records import Assessment, Trace

EXPECTED = "expected_response"
"""MLflow's own name for the answer that was expected."""


def judged(traces: Sequence[Trace]) -> list[Trace]:
    """The traces with the stars and the correction that people gave.

    ``true`` is 5 stars, ``false`` 1. A number is of 1 to 5 where one of that name, over all the traces, is above 1,
    and of 0 to 1 where one is below 1, on a line from 1 star to 5; where all are 1 nobody can tell, and it is no
    rating. Of several the lowest counts. A text that a person expected is the correction: ``expected_response``, else
    the latest.
    """
    tops: dict[str, list[float]] = defaultdict(list)
    for trace in traces:
        for each in _people(trace, "feedback"):
            if isinstance(each.value, int | float) and not isinstance(each.value, bool):
                tops[each.name].append(each.value)
    return [_judged(trace, tops) for trace in traces]


def _judged(trace: Trace, tops: Mapping[str, Sequence[float]]) -> Trace:
    rated = [(stars, each) for each in _people(trace, "feedback") if (stars := _stars(each, tops)) is not None]
    expected = [each for each in _people(trace, "expectation") if isinstance(each.value, str) and each.value.strip()]
    if expected:
        latest = max(expected, key=lambda each: (each.name == EXPECTED, each.time or ""))
        trace = replace(trace, correction=str(latest.value))
    if not rated:
        return trace
    stars, lowest = min(rated, key=lambda pair: pair[0])
    return replace(trace, stars=stars, rated_by=lowest.by, rated=lowest.time, comment=lowest.rationale)


def _people(trace: Trace, kind: str) -> list[Assessment]:
    return [each for each in trace.assessments if each.source == "human" and each.kind == kind]


def _stars(each: Assessment, tops: Mapping[str, Sequence[float]]) -> int | None:
    """1 to 5; ``None`` for what is no rating."""
    value = each.value
    if isinstance(value, bool):
        return 5 if value else 1
    if not isinstance(value, int | float):
        return None
    others = tops[each.name]
    if max(others) > 1:
        return round(value) if 1 <= value <= 5 and max(others) <= 5 else None
    if min(others) < 1 and 0 <= value <= 1:
        return round(1 + 4 * value)
    return None
