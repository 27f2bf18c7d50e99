"""The adapters of a pack side by side: hooks on the frozen base's linear layers add every trial's own update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loraloop.errors import ModelError
from loraloop.trainer.pack.adapter import Adapter, split
from loraloop.trainer.pack.dropout_masks import DropoutMasks

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class RankGroup:
    """The adapters of neighbouring trials that have one rank, so that nothing is padded.

    Args:
        adapters: What the trials started from.
        rows: Their weights now.

    Attributes:
        weights: ``[trials, parameters]``; a row is one trial's adapter.
        grads: The gradients of ``weights``.
        layers: By layer, A ``[trials, rank, inputs]`` and B ``[trials, outputs, rank]`` as leaves of autograd that
            share memory with ``weights``.
    """

    def __init__(self, adapters: Sequence[Adapter], rows: Sequence[Tensor]) -> None:
        import torch

        first = adapters[0]
        self.adapters = adapters
        self.weights = torch.stack(list(rows))
        self.grads = torch.zeros_like(self.weights)
        self.layers = {
            name: (a.detach().requires_grad_(), b.detach().requires_grad_())
            for name, a, b in split(self.weights, first.layers, first.rank)
        }
        scaling = [adapter.scaling for adapter in adapters]
        self._scaling = torch.tensor(scaling, dtype=self.weights.dtype, device=self.weights.device)[:, None, None]

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each leaf with the part of ``grads`` that is its gradient."""
        first = self.adapters[0]
        for name, *grads in split(self.grads, first.layers, first.rank):
            yield from zip(self.layers[name], grads, strict=True)

    def add(self, layer: str, x: Tensor, out: Tensor, part: slice) -> Tensor:
        """``out + scaling * x A' B'`` for ``[trials, tokens, features]`` of a ``part`` (arXiv 2106.09685, eq. 3)."""
        import torch

        a, b = (leaf if len(x) == len(leaf) else leaf[part] for leaf in self.layers[layer])
        low = torch.bmm(x.to(a.dtype), a.mT)
        low = low * self._scaling[part].to(low.dtype)
        if low.dtype == out.dtype:
            return torch.baddbmm(out, low, b.mT)
        return out + torch.bmm(low, b.mT).to(out.dtype)


class AdapterStack:
    """All adapters of a pack, one group per rank.

    Args:
        adapters: Of the trials; those of equal rank stand together.
        masks: Draws the dropout masks.

    Attributes:
        part: Positions of the trials whose rows the next pass holds.
    """

    def __init__(self, adapters: Sequence[Adapter], masks: DropoutMasks) -> None:
        self.masks = masks
        self._build(adapters, [adapter.flat for adapter in adapters])

    def _build(self, adapters: Sequence[Adapter], rows: Sequence[Tensor]) -> None:
        self.groups: list[RankGroup] = []
        self.part = slice(0, len(adapters))
        for rank in dict.fromkeys(adapter.rank for adapter in adapters):
            places = [index for index, adapter in enumerate(adapters) if adapter.rank == rank]
            self.groups.append(RankGroup([adapters[index] for index in places], [rows[index] for index in places]))

    def rows(self) -> list[tuple[Tensor, Tensor]]:
        """Each trial's weights and their gradients, as views."""
        return [pair for group in self.groups for pair in zip(group.weights, group.grads, strict=True)]

    def hold(self, adapters: Sequence[Adapter], rows: Sequence[Tensor]) -> None:
        """Go on with these trials, whose weights are ``rows``; those of equal rank stand together."""
        self._build(adapters, rows)

    def _parts(self) -> Iterator[tuple[RankGroup, slice]]:
        """Each group that takes part in the next pass, with the positions within it."""
        start = 0
        for group in self.groups:
            first, end = max(self.part.start - start, 0), min(self.part.stop - start, len(group.adapters))
            if first < end:
                yield group, slice(first, end)
            start += len(group.adapters)

    def clear(self) -> None:
        """Set all gradients to zero."""
        for group in self.groups:
            group.grads.zero_()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss`` to every trial's own."""
        import torch

        leaves, grads = zip(*(pair for group, _ in self._parts() for pair in group.pairs()), strict=True)
        for total, grad in zip(grads, torch.autograd.grad(loss, leaves), strict=True):
            total.add_(grad)

    @contextmanager
    def attached(self, model: PreTrainedModel) -> Iterator[None]:
        """Within the context, ``model`` adapts each trial's rows with its own adapter; no module is replaced."""
        names = self.groups[0].layers
        handles = [model.get_submodule(name).register_forward_hook(self._hook(name)) for name in names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            import torch

            x = self._by_trial(name, inputs[0])
            out = output.reshape(len(x), -1, output.shape[-1])
            if layer.training:
                x = self.masks.drop(x)
            groups = list(self._parts())
            sizes = [part.stop - part.start for _, part in groups]
            pieces = zip(groups, x.split(sizes), out.split(sizes), strict=True)
            added = [group.add(name, one, other, part) for (group, part), one, other in pieces]
            return (added[0] if len(added) == 1 else torch.cat(added)).view_as(output)

        return add

    def _by_trial(self, name: str, x: Tensor) -> Tensor:
        trials = self.part.stop - self.part.start
        if x.numel() != trials * self.masks.tokens * x.shape[-1]:
            raise ModelError(
                f"{name} is given {tuple(x.shape)}, not every token of every trial: a model that routes tokens "
                "cannot be packed. Take hydra/launcher=basic"
            )
        return x.reshape(trials, -1, x.shape[-1])
