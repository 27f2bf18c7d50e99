"""The generation of one answer, from the queue to its last token."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from loraloop.records import Chunk, GenerationRequest
from loraloop.serve.engine.decoder import StreamDecoder
from loraloop.serve.engine.sampling import Sampler, likeliest
from loraloop.serve.engine.token_text import token_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from loraloop.serve.engine.constraint import Constraint
    from loraloop.serve.engine.lora import LoraAdapter

TOGETHER = 0.01
"""Seconds in which an answer's text is collected: to wake the event loop costs a small model more than a token."""

TokenLogprobs = tuple[str, float, dict[str, float]]


class Generation:
    """A request, what has been generated for it so far, and the queue that its chunks go to.

    Args:
        request: What is asked.
        prompt: The prompt's tokens.
        room: Most tokens that may follow them.
        adapter: The adapter that answers; ``None`` is the base.
        tokenizer: Turns tokens into text.
        deadline: When the answer ends as it is, in the time of :func:`time.monotonic`.
        constraint: What the answer is held to.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt: list[int],
        room: int,
        adapter: LoraAdapter | None,
        tokenizer: PreTrainedTokenizerBase,
        deadline: float,
        constraint: Constraint | None = None,
    ) -> None:
        self.request, self.prompt, self.adapter = request, prompt, adapter
        self.sampler, self.constraint = Sampler.of(request), constraint
        self.loop = asyncio.get_running_loop()
        self.chunks: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
        self.cancelled = False
        self.tokens = list(prompt)
        self.reused = 0
        self._deadline = deadline
        self._room = min(request.max_tokens, room)
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(self._decode, request.stop)
        self._logprobs: list[TokenLogprobs] = []
        self._looked_for = any(request.stop)
        self._undecoded: list[int] = []
        self._text = ""
        self._unsent = 0
        self._due = 0.0

    @property
    def last(self) -> int:
        """The newest token."""
        return self.tokens[-1]

    @property
    def generated(self) -> int:
        """How many tokens the answer has."""
        return len(self.tokens) - len(self.prompt)

    @property
    def cached(self) -> int:
        """Tokens before the next one: all but the newest, which the model has not seen yet."""
        return len(self.tokens) - 1

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self._deadline

    def take(self, token: int, logits: Tensor, ends: frozenset[int]) -> Chunk | Exception | None:
        """Add a token, and return the chunk of text that is certain now, if any; the last one has a ``finish``.

        An error is returned where the answer cannot be held to its grammar any more.
        """
        self.tokens.append(token)
        self._unsent += 1
        ended = token in ends
        if self.constraint is not None:
            if not ended:
                self.constraint.take(token)
            if self.constraint.failed is not None:  # also where its mask failed and an end was drawn without one
                return self.constraint.failed
        # With the prompt's tokens the end is told too: who counts them expects as many as were generated.
        if self.request.logprobs is not None and (self.request.echo or not ended):
            self._logprobs.append(self._likely(logits, token))
        if ended:
            return self.end("stop")
        self._undecoded.append(token)
        complete = self.constraint is not None and self.constraint.complete
        finish = "stop" if complete else "length" if self.generated >= self._room else None
        if finish is None and not self._looked_for and time.monotonic() < self._due:
            return None
        self._decode_new()
        if self._decoder.stopped:
            return self._chunk("stop")
        if finish is not None:
            return self.end(finish)
        return self._chunk(None) if self._text and time.monotonic() >= self._due else None

    def end(self, finish: str) -> Chunk:
        """The last chunk, with all text that was held back."""
        self._decode_new()
        self._text += self._decoder.end()
        return self._chunk("stop" if self._decoder.stopped else finish)

    def _decode_new(self) -> None:
        if self._undecoded:
            self._text += self._decoder.add(*self._undecoded)
            self._undecoded = []

    def _chunk(self, finish: str | None) -> Chunk:
        chunk = Chunk(
            text=self._text,
            tokens=self._unsent,
            logprobs=tuple(self._logprobs),
            finish=finish,
            reused=0 if self._due else self.reused,
        )
        self._text, self._unsent, self._logprobs = "", 0, []
        self._due = time.monotonic() + TOGETHER
        return chunk

    def _likely(self, logits: Tensor, token: int) -> TokenLogprobs:
        own, others = likeliest(logits, token, self.request.logprobs or 0)
        return (
            token_text(self._tokenizer, token),
            own,
            {token_text(self._tokenizer, other): value for other, value in others},
        )

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
