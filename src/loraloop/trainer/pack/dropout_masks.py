"""Dropout masks as each trial would have drawn them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device

Key = tuple[int, float, int]
"""Seed, dropout probability, and the step of the pack at which the trial began."""


class DropoutMasks:
    """The random states of a pack's trials; those of equal keys would draw equal masks, and share them.

    Args:
        keys: Of each trial.
        device: Where masks are needed.
    """

    def __init__(self, keys: Sequence[Key], device: Device) -> None:
        import torch

        self._device = device
        self._keys: list[Key] = []
        self._generators: dict[Key, torch.Generator] = {}
        self.hold(keys)
        self._rows = self._length = 0
        self._lengths: Sequence[int] = ()
        self._part = slice(None)

    @property
    def tokens(self) -> int:
        """Tokens of each trial in the batch, padding included."""
        return self._rows * self._length

    def hold(self, keys: Sequence[Key]) -> None:
        """Go on with the trials of these keys; those that were not there begin with their seed."""
        import torch

        self._keys = list(keys)
        for key in self._keys:
            if key not in self._generators:
                self._generators[key] = torch.Generator(self._device).manual_seed(key[0])
        self._generators = {key: self._generators[key] for key in self._keys}

    def iterate(self, positions: Sequence[int]) -> None:
        """Draw for these trials what torch's DataLoader draws from the global state when an iteration begins."""
        import torch

        for key in dict.fromkeys(self._keys[position] for position in positions):
            generator = self._generators[key]
            torch.empty((), dtype=torch.int64, device=generator.device).random_(generator=generator)

    def states(self) -> dict[Key, Tensor]:
        """The random states now, for :meth:`begin`."""
        return {key: generator.get_state() for key, generator in self._generators.items()}

    def begin(
        self,
        rows: int,
        length: int,
        lengths: Sequence[int],
        part: slice = slice(None),
        states: Mapping[Key, Tensor] | None = None,
    ) -> None:
        """Say what comes next.

        Args:
            rows: Rows of each trial.
            length: Their padded length here.
            lengths: Their padded length in each trial's own batch.
            part: The trials that take part; the masks of a trial do not depend on the others.
            states: The random states from which they draw; by default those that they are in.
        """
        self._rows, self._length, self._lengths, self._part = rows, length, lengths, part
        if states:
            for key in set(self._keys[part]):
                self._generators[key].set_state(states[key])

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of ``[trials, tokens, features]``."""
        import torch

        keys = self._keys[self._part]
        if not any(rate for _, rate, _ in keys):
            return x
        lengths = dict(zip(keys, self._lengths, strict=True))
        masks = {key: self._mask(x, key, length) for key, length in lengths.items()}
        if len(masks) == 1:
            return x * masks[keys[0]]
        return x * torch.stack([masks[key] for key in keys])

    def _mask(self, x: Tensor, key: Key, length: int) -> Tensor:
        """A mask drawn in the shape of the trial's own batch, then padded: ``[tokens, features]``."""
        from torch.nn import functional

        _, rate, _ = key
        if not rate:
            return x.new_ones(self.tokens, x.shape[-1])
        mask = x.new_empty(self._rows, length, x.shape[-1])
        mask.bernoulli_(1 - rate, generator=self._generators[key]).div_(1 - rate)
        return functional.pad(mask, (0, 0, 0, self._length - length)).flatten(0, 1)
