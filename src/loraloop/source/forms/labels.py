"""A column ``label`` that may judge answers, as KTO's does, or may be any other column, such as a class."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loraloop.records import Example, Provenance, Quarantined
from loraloop.source.forms.draft import OddLabelError, Row, label, label_column
from loraloop.source.forms.recognise import Form, Made, make
from loraloop.source.forms.tally import Tally

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Labels:
    """The rows of a file whose label is neither true nor false.

    Attributes:
        odd: The example of each without a label, what it would be set aside as, and the conversation that was counted.
        values: What their labels say.
    """

    odd: list[tuple[Example, Quarantined, Made | None]] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    def make(
        self, item: str, form: Form, row: Mapping[str, Any], instruction: str, task: str, provenance: Provenance
    ) -> Made:
        """The example of a row, as :func:`loraloop.source.forms.make`; an odd label is kept for :meth:`settle`."""
        try:
            return make(form, row, instruction, task, provenance)
        except OddLabelError as error:
            others = {name: value for name, value in row.items() if name != "label"}
            made = make(form, others, instruction, task, provenance)
            self._keep(item, made.example, error, made)
            return made

    def judge(self, item: str, turn: Example, row: Row, tally: Tally, *, numbers: bool) -> Example:
        """A question and its answer with the label of their row; a pair has none, and says itself what is good.

        Args:
            item: What to call the row.
            turn: The question and its answer.
            row: Its values.
            tally: Counts the label.
            numbers: Whether 0 and 1 judge: where a person says which column is the answer, they number classes.

        Raises:
            ValueError: ``kto_tag`` is neither true nor false.
        """
        if turn.rejected is not None or (name := label_column(row)) is None:
            return turn
        try:
            if not numbers and _is_number(str(row[name])):
                raise OddLabelError(row[name])
            turn = replace(turn, label=label(row))
        except OddLabelError as error:
            self._keep(item, turn, error, None)
        tally.judged(turn, row)
        return turn

    def _keep(self, item: str, example: Example, error: OddLabelError, counted: Made | None) -> None:
        self.odd.append((example, Quarantined(item, str(error)), counted))
        self.values.append(error.value)

    def settle(
        self, where: str, examples: list[Example], quarantined: list[Quarantined], tally: Tally
    ) -> list[Example]:
        """The examples, without labels where the column judges nothing, else without those whose label is odd.

        It judges nothing where a label is another number than 0 and 1, or where most are neither true nor false.
        """
        if not self.odd:
            return examples
        judged = sum(example.label is not None for example in examples)
        if len(self.odd) > judged or any(map(_is_number, self.values)):
            _log.warning("%s: label is no judgement, such as %r: no answer counts as bad", where, self.values[0][:40])
            tally.labels.clear()
            return [replace(example, label=None) for example in examples]
        aside = {id(example.provenance) for example, _, _ in self.odd}
        quarantined += (item for _, item, _ in self.odd)
        for counted in (made for _, _, made in self.odd if made is not None):
            tally.remove(counted)
        return [example for example in examples if id(example.provenance) not in aside]


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
