"""One answer on its way from the queue to its last token."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from loraloop.records import Chunk, GenerationRequest
from loraloop.serve.engine.sampling import Sampler, likeliest
from loraloop.serve.engine.text import REPLACEMENT, Text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from loraloop.serve.engine.lora import Adapter

Told = tuple[str, float, dict[str, float]]


class Answer:
    """An ask, what has been answered so far, and where the pieces go.

    Args:
        ask: What is asked.
        prompt: The prompt's tokens.
        room: Most tokens that may follow them.
        adapter: Whose answer it is; ``None`` is the base.
        tokenizer: Turns tokens into text.
        deadline: In the time of :func:`time.monotonic`.
    """

    def __init__(
        self,
        ask: GenerationRequest,
        prompt: list[int],
        room: int,
        adapter: Adapter | None,
        tokenizer: PreTrainedTokenizerBase,
        deadline: float,
    ) -> None:
        self.ask, self.prompt, self.adapter = ask, prompt, adapter
        self.sampler = Sampler.of(ask)
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
        self.left = False
        self.last = -1
        self.generated = 0
        self._deadline = deadline
        self._room = min(ask.max_tokens, room)
        self._tokenizer = tokenizer
        self._text = Text(self._decode, ask.stop)
        self._told: list[Told] = []
        self._untold = 0

    @property
    def cached(self) -> int:
        """Tokens before the next one: all but the newest, which the model has not seen yet."""
        return len(self.prompt) + self.generated - 1

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self._deadline

    def take(self, token: int, logits: Tensor, ends: frozenset[int]) -> Chunk | None:
        """Add a token; the piece that it makes certain, if any, says with its ``finish`` whether it was the last."""
        self.last = token
        self.generated += 1
        self._untold += 1
        if token in ends:
            return self.end("stop")
        if self.ask.logprobs is not None:
            self._told.append(self._likely(logits, token))
        text = self._text.add(token)
        if self._text.stopped:
            return self._piece(text, "stop")
        if self.generated >= self._room:
            return self.end("length", text)
        return self._piece(text, None) if text else None

    def end(self, finish: str, text: str = "") -> Chunk:
        """The last piece, with all text that was held back."""
        rest = self._text.end()
        return self._piece(text + rest, "stop" if self._text.stopped else finish)

    def _piece(self, text: str, finish: str | None) -> Chunk:
        piece = Chunk(text=text, tokens=self._untold, logprobs=tuple(self._told), finish=finish)
        self._untold, self._told = 0, []
        return piece

    def _likely(self, logits: Tensor, token: int) -> Told:
        own, others = likeliest(logits, token, self.ask.logprobs or 0)
        return self._name(token), own, {self._name(other): value for other, value in others}

    def _name(self, token: int) -> str:
        """A token's text; where it is a part of a character, its name in the vocabulary, which no other token has."""
        text = str(self._tokenizer.decode([token]))
        return str(self._tokenizer.convert_ids_to_tokens(token)) if REPLACEMENT in text else text

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
