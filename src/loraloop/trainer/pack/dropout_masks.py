"""Dropout masks as each trial would have drawn them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device


class DropoutMasks:
    """The random states of a pack's trials; those of equal seed and dropout would draw equal masks, and share them.

    Args:
        keys: Seed and dropout probability of each trial.
        device: Where masks are needed.
    """

    def __init__(self, keys: Sequence[tuple[int, float]], device: Device) -> None:
        import torch

        self._keys = list(keys)
        self._rows = self._length = 0
        self._lengths: Sequence[int] = ()
        self._generators = {key: torch.Generator(device).manual_seed(key[0]) for key in keys}

    @property
    def tokens(self) -> int:
        """Tokens of each trial in the batch, padding included."""
        return self._rows * self._length

    def keep(self, kept: Sequence[int]) -> None:
        """Drop all trials but those at the positions ``kept``."""
        self._keys = [self._keys[index] for index in kept]

    def iterate(self) -> None:
        """Draw what torch's DataLoader draws from the global state when an iteration over it begins."""
        import torch

        for generator in self._generators.values():
            torch.empty((), dtype=torch.int64, device=generator.device).random_(generator=generator)

    def begin(self, rows: int, length: int, lengths: Sequence[int]) -> None:
        """Say what comes next: rows per trial, their padded length here, and in each trial's own batch."""
        self._rows, self._length, self._lengths = rows, length, lengths

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of ``[trials, tokens, features]``."""
        import torch

        if not any(rate for _, rate in self._keys):
            return x
        lengths = dict(zip(self._keys, self._lengths, strict=True))
        masks = {key: self._mask(x, key, length) for key, length in lengths.items()}
        if len(masks) == 1:
            return x * masks[self._keys[0]]
        return x * torch.stack([masks[key] for key in self._keys])

    def _mask(self, x: Tensor, key: tuple[int, float], length: int) -> Tensor:
        """A mask drawn in the shape of the trial's own batch, then padded: ``[tokens, features]``."""
        from torch.nn import functional

        _, rate = key
        if not rate:
            return x.new_ones(self.tokens, x.shape[-1])
        mask = x.new_empty(self._rows, length, x.shape[-1])
        mask.bernoulli_(1 - rate, generator=self._generators[key]).div_(1 - rate)
        return functional.pad(mask, (0, 0, 0, self._length - length)).flatten(0, 1)
