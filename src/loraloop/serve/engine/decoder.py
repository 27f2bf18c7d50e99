"""From tokens to text, one by one: no character is split, and what may begin a stop string is held back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
WINDOW, CONTEXT = 24, 4
"""Tokens that are decoded again with every new one, and those kept of them when they have become too many."""

Decode = Callable[[list[int]], str]


class StreamDecoder:
    """Decodes the text of an answer while its tokens come.

    Args:
        decode: The tokenizer's, special tokens left out.
        stops: Strings that end the answer; none of them is ever part of it.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        self._window: list[int] = []
        self._sent = 0
        self._held = ""
        self.stopped = False

    def add(self, *tokens: int) -> str:
        """The text that is certain now; sets :attr:`stopped` when a stop string is complete."""
        self._window.extend(tokens)
        text = self._decode(self._window)
        # Only the last replacement character may be a character whose bytes are still to come.
        certain = text.removesuffix(REPLACEMENT)
        new = certain[self._sent :]
        self._sent = max(self._sent, len(certain))
        if len(certain) == len(text) and len(self._window) > WINDOW:
            self._window = self._window[-CONTEXT:]
            self._sent = len(self._decode(self._window))
        return self._release(new)

    def end(self) -> str:
        """The rest, when no token follows."""
        if self.stopped:
            return ""
        return self._release(self._decode(self._window)[self._sent :]) + self._held

    def _release(self, new: str) -> str:
        text = self._held + new
        ends = [at for at in map(text.find, self._stops) if at >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``stop``."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if stop.startswith(text[-size:])), 0)
