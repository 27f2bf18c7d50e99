"""The form of a judge's answer: a JSON schema to ask for it, and the reading that takes nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Form:
    """An object of a reason and one of a few values.

    Attributes:
        key: Under which the value stands.
        values: Those that may stand there, all of one type.
    """

    key: str
    values: Sequence[int | str]

    @property
    def response_format(self) -> dict[str, Any]:
        """As OpenAI's ``response_format`` asks for it; the reason comes first, so that the value follows from it."""
        kind = "integer" if isinstance(self.values[0], int) else "string"
        schema = {
            "type": "object",
            "properties": {"reason": {"type": "string"}, self.key: {"type": kind, "enum": list(self.values)}},
            "required": ["reason", self.key],
            "additionalProperties": False,
        }
        return {"type": "json_schema", "json_schema": {"name": self.key, "strict": True, "schema": schema}}

    def read(self, text: str) -> tuple[int | str, str] | None:
        """Value and reason of the object of this form in ``text``; ``None`` where none or different ones stand there.

        A text that quotes what it judges may hold an object that somebody else wrote, so that of two values none is
        taken.
        """
        found = [each for each in _objects(text) if self._is(each)]
        if len({each[self.key] for each in found}) != 1:
            return None
        return found[-1][self.key], found[-1]["reason"].strip()

    def _is(self, found: dict[str, Any]) -> bool:
        value = found.get(self.key)
        known = type(value) is type(self.values[0]) and value in self.values
        return known and found.keys() == {"reason", self.key} and isinstance(found["reason"], str)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in a text."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield found
        start = text.find("{", end)


SCORE = Form("score", (1, 2, 3, 4, 5))
BETTER = Form("better", ("A", "B", "tie"))
