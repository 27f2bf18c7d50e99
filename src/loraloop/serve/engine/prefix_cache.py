"""Keys and values of prompts and answers that have ended, for the prompts that begin as they do."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loraloop.core.exhausted import explain

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

BLOCK = 16
"""Tokens of a block; of a common beginning, whole blocks are used again."""
MIB = 2**20

Key = tuple[Hashable, tuple[int, ...]]
"""What a block continues, an owner or the number of the block before it, and its tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The keys and values of :data:`BLOCK` tokens, ``[2 * layers, heads, BLOCK, size]``."""

    number: int
    state: Tensor


class PrefixCache:
    """Blocks of tokens in a tree, as vLLM and SGLang keep them (arXiv 2309.06180, 2312.07104).

    A block belongs to its owner and to every token before it, compared as they are and not by a hash, so that it is
    found by no other adapter and in no other scope. The least recently used block makes room, a later one of a prompt
    before an earlier one. Only the model's thread uses it.

    Args:
        mebibytes: Most memory of all blocks; 0 keeps nothing.
    """

    def __init__(self, mebibytes: int) -> None:
        self._most = mebibytes * MIB
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self._made = 0
        self.bytes = 0
        self.evictions = 0
        self.reused = 0

    def find(self, owner: Hashable, tokens: Sequence[int]) -> list[Tensor]:
        """The blocks that a prompt begins with; the last token is in none of them, as it has to be read again."""
        found = self._chain(owner, tokens[:-1])
        self._touch([key for key, _ in found])
        self.reused += len(found) * BLOCK
        return [block.state for _, block in found]

    def keep(self, owner: Hashable, tokens: Sequence[int], read: Callable[[int, int], Tensor | None]) -> None:
        """Keep the keys and values of tokens, or fewer of them where memory is short.

        Args:
            owner: Whose they are.
            tokens: From the first one on.
            read: Returns the keys and values from one token to another, ``None`` where they cannot be kept.
        """
        known = self._chain(owner, tokens)
        keys = [key for key, _ in known]
        try:
            self._grow(keys, known[-1][1].number if known else owner, tokens, read)
        except (RuntimeError, MemoryError) as error:  # no answer needs the cache, so none may end for it
            if not explain(error):
                raise
            log.warning("memory is short, so a prompt and its answer are not kept (serve.prefix_cache_mb): %s", error)
        self._touch(keys)
        self._evict()

    def clear(self) -> None:
        """Forget every block."""
        self._blocks.clear()
        self.bytes = 0

    def _grow(
        self, keys: list[Key], before: Hashable, tokens: Sequence[int], read: Callable[[int, int], Tensor | None]
    ) -> None:
        """Add the blocks that follow those of ``keys``, and their keys."""
        begin, end = len(keys) * BLOCK, len(tokens) // BLOCK * BLOCK
        state = read(begin, end) if begin < end and self._most else None
        if state is None:
            return
        for at in range(begin, end, BLOCK):
            key = before, tuple(tokens[at : at + BLOCK])
            before = self._add(key, state[:, :, at - begin : at - begin + BLOCK].clone())
            keys.append(key)

    def _chain(self, owner: Hashable, tokens: Sequence[int]) -> list[tuple[Key, Block]]:
        found: list[tuple[Key, Block]] = []
        before = owner
        for at in range(0, len(tokens) - BLOCK + 1, BLOCK):
            key = before, tuple(tokens[at : at + BLOCK])
            block = self._blocks.get(key)
            if block is None:
                break
            found.append((key, block))
            before = block.number
        return found

    def _add(self, key: Key, state: Tensor) -> int:
        self._made += 1
        self._blocks[key] = Block(self._made, state)
        self.bytes += state.nbytes
        return self._made

    def _touch(self, keys: Sequence[Key]) -> None:
        for key in reversed(keys):  # a block is of no use without those before it, so they stay longer
            self._blocks.move_to_end(key)

    def _evict(self) -> None:
        while self.bytes > self._most:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= block.state.nbytes
            self.evictions += 1
