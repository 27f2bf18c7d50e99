"""Answers that are held to a grammar: of each next token, which ones it allows."""

from __future__ import annotations

import copy
import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from loraloop.errors import GrammarError
from loraloop.records import Grammar
from loraloop.serve import grammar as grammars

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class Constraint:
    """How far one answer has come in its grammar.

    Attributes:
        failed: Why it cannot go on: a step of the grammar took more than its limits.
    """

    def __init__(self, matcher: LLMatcher, param: str) -> None:
        self._matcher, self._param = matcher, param
        self.failed: GrammarError | None = None
        self._find_fault()

    @property
    def complete(self) -> bool:
        """Whether nothing can follow."""
        return self.failed is None and bool(self._matcher.is_stopped())

    def allowed(self, width: int) -> Tensor:
        """Which of ``width`` tokens may come next: a mask; all of them once it has failed."""
        import numpy as np
        import torch

        packed = np.frombuffer(self._matcher.compute_bitmask() if self.failed is None else b"", np.uint8)
        self._find_fault()
        if self.failed is not None:
            return torch.ones(width, dtype=torch.bool)
        bits = np.unpackbits(packed, count=width, bitorder="little")  # pads with zeros: rows of no token
        return torch.from_numpy(bits.astype(bool))

    def take(self, token: int) -> None:
        """Add a token of the answer."""
        self._matcher.consume_token(token)
        self._find_fault()

    def _find_fault(self) -> None:
        if self.failed is None and self._matcher.is_error():
            why = " ".join(self._matcher.get_error().split())[:500]
            self.failed = GrammarError(f"{self._param}: the grammar takes too much work: {why}", self._param)


class Constraints:
    """Makes the constraints of a tokenizer.

    Args:
        tokenizer: A fast one.
        ends: Tokens that end an answer.
        encoding: Held while the tokenizer is used.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Collection[int], encoding: threading.Lock) -> None:
        self._tokenizer, self._ends, self._encoding = tokenizer, sorted(ends), encoding
        self._read: LLTokenizer | None = None

    def make(self, grammar: Grammar) -> Constraint:
        """The beginning of an answer under a grammar. One thread at a time may call this.

        Raises:
            GrammarError: The grammar is too large, or the tokenizer's tokens are not known as bytes.
        """
        from llguidance import LLMatcher

        if self._read is None:
            self._read = self._vocabulary(grammar)
        made = LLMatcher.grammar_from_lark(grammars.text(grammar))
        param = grammars.param_of(grammar)
        constraint = Constraint(LLMatcher(self._read, made, log_level=0, limits=grammars.limits()), param)
        if constraint.failed is not None:
            raise constraint.failed
        return constraint

    def _vocabulary(self, grammar: Grammar) -> LLTokenizer:
        """Each token's bytes; for a large vocabulary this takes a second."""
        from llguidance import LLTokenizer

        try:
            with self._encoding:
                backend = copy.copy(self._tokenizer.backend_tokenizer)
                backend.no_padding()
                backend.no_truncation()
                described = backend.to_str()
            return LLTokenizer(described, eos_token=self._ends or None)
        except (AttributeError, ValueError) as error:
            raise GrammarError(
                f"{grammars.param_of(grammar)}: the base's tokenizer cannot be held to a grammar ({error}): it must be "
                "one of the tokenizers library",
                grammars.param_of(grammar),
            ) from error


def held(logits: Tensor, constraints: Sequence[Constraint | None]) -> Tensor:
    """The logits ``[rows, vocabulary]`` with those tokens at minus infinity that a row's constraint does not allow."""
    if not any(constraints):
        return logits
    logits = logits.clone()
    for row, constraint in enumerate(constraints):
        if constraint is not None:
            allowed = constraint.allowed(logits.shape[-1]).to(logits.device)
            logits[row].masked_fill_(~allowed, -float("inf"))
    return logits
