"""Which rows ask what a golden row asks: a candidate that was trained on them would not be measured by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loraloop.records import Row


def apart(golden: Sequence[Row], rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows that may be trained on, and those that overlap with a golden row.

    Rows overlap when their prompts are equal but for case, white space and punctuation, or when the split would keep
    them on one side (:func:`loraloop.dataset.split.group`).
    """
    from loraloop.dataset.split import group

    prompts = {_normal(row) for row in golden}
    together: set[int] = set()
    for places in group([row.example for row in (*golden, *rows)]):
        if min(places) < len(golden):
            together.update(places)
    kept: list[Row] = []
    dropped: list[Row] = []
    for place, row in enumerate(rows, len(golden)):
        (dropped if place in together or _normal(row) in prompts else kept).append(row)
    return kept, dropped


def _normal(row: Row) -> str:
    from loraloop.dataset.similarity import normalise

    return normalise(row.prompt) or row.prompt
