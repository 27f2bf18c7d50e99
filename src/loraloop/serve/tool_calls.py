"""Tool calls in the text of a stream, kept back until they are whole."""

from __future__ import annotations

from dataclasses import dataclass

OPENS = "<tool_call>"


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
