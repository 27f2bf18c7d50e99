"""Tool calls in an answer's text: found, and kept back from a stream until they are whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from loraloop.core.messages import as_json
from loraloop.core.tool_calls import read

OPENS = "<tool_call>"
_TAGGED = re.compile(f"{OPENS}.*?</tool_call>", re.DOTALL)


def split(text: str, session: str, *, parallel: bool = True) -> tuple[str | None, list[dict[str, Any]]]:
    """The text of an answer and its tool calls in OpenAI's form.

    Where something that stands for a call is none, the whole answer is text, as it is.

    Args:
        text: The answer.
        session: Names the calls, together with their places.
        parallel: Whether there may be more than one call; others than the first are left out.
    """
    if OPENS not in text:  # JSON alone is text here, as a stream has shown it by then
        return text, []
    try:
        calls = read(text)
    except ValueError:
        return text, []
    said = _TAGGED.sub("", text).strip()
    made = [
        {
            "id": f"call_{session}_{place}",
            "type": "function",
            "function": {"name": call.name, "arguments": as_json(call.arguments)},
        }
        for place, call in enumerate(calls)
    ]
    return said or None, made if parallel else made[:1]


@dataclass
class Held:
    """The text of a stream, of which everything from the first call on is kept back.

    Attributes:
        text: What is kept back.
    """

    text: str = ""

    def take(self, text: str) -> str:
        """What may be shown of the text so far and ``text``."""
        whole = self.text + text
        at = whole.find(OPENS)
        if at < 0:
            at = next(
                (len(whole) - n for n in range(min(len(OPENS), len(whole)), 0, -1) if OPENS.startswith(whole[-n:])),
                len(whole),
            )
        shown, self.text = whole[:at], whole[at:]
        return shown
