"""Batches of rows of about one length, in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

WINDOW = 64


class LengthGrouped:
    """Row indices whose consecutive ``batch`` entries are of similar length; a sampler for torch's DataLoader.

    Rows are permuted, sorted by length within windows of 64 batches, and the batches are permuted, so that neither
    length nor order repeats between epochs. An epoch's order depends on ``seed`` and the epoch alone.

    Args:
        lengths: Tokens of each row.
        batch: Rows of one optimizer step over all devices.
        seed: Of the permutations.
        multiple: Rows that several processes take at once: the last are filled up with the index behind the last row.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, multiple: int = 1) -> None:
        self.lengths = np.asarray(lengths)
        self.batch = batch
        self.seed = seed
        self.epoch = 0
        self.fillers = -len(lengths) % multiple

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self.fillers

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        span = self.batch * WINDOW
        windows = [order[start : start + span] for start in range(0, len(order), span)]
        grouped = np.concatenate([window[np.argsort(-self.lengths[window], kind="stable")] for window in windows])
        full = len(grouped) // self.batch * self.batch
        batches = rng.permutation(grouped[:full].reshape(-1, self.batch))
        return iter([*batches.ravel().tolist(), *grouped[full:].tolist(), *[len(self.lengths)] * self.fillers])
