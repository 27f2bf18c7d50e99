"""The form of a judge's answer: a JSON schema to ask for it, and the reading that takes nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REPLY = re.compile(r"[^{}`]{0,100}(?P<fence>```(?:json)?\s*)?(?P<object>\{.*\})(?(fence)\s*```)", re.DOTALL)
"""An object, in a code fence or not, after at most a short sentence and before nothing."""


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

    def read(self, text: str, material: str) -> tuple[int | str, str] | None:
        """Value and reason of the one object that ``text`` is; ``None`` where it is anything else.

        A reply that speaks of what it judges may hold an object that somebody else wrote: one with words after it, or
        that stands in ``material``, what was judged, is not taken for the judge's.
        """
        reply = REPLY.fullmatch(text.strip())
        if reply is None or _plain(reply["object"]) in _plain(material):
            return None
        try:
            found = json.loads(reply["object"], object_pairs_hook=_each_once)
        except (ValueError, RecursionError):  # two objects are no JSON either
            return None
        return (found[self.key], found["reason"].strip()) if self._is(found) else None

    def _is(self, found: dict[str, Any]) -> bool:
        value = found.get(self.key)
        known = type(value) is type(self.values[0]) and value in self.values
        return known and found.keys() == {"reason", self.key} and isinstance(found["reason"], str)


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that says nothing twice: of two values under one key JSON takes the last, whichever was meant."""
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a key stands twice")
    return found


def _plain(text: str) -> str:
    """Without white space, and without the backslashes of JSON in JSON."""
    return re.sub(r"[\s\\]", "", text)


SCORE = Form("score", (1, 2, 3, 4, 5))
BETTER = Form("better", ("A", "B", "tie"))
