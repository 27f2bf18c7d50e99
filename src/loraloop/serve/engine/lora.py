"""LoRA adapters of different rows of one batch, applied in one pass (the idea of S-LoRA, arXiv 2311.03285)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from loraloop.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


FAMILIES = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that most architectures give the same tensor."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an adapter adds to one linear layer: ``x @ down @ up``.

    Attributes:
        down: ``[inputs, rank]``.
        up: ``[rank, outputs]``, the adapter's scaling included.
    """

    down: Tensor
    up: Tensor


_serials = count(1)


@dataclass(eq=False)
class LoraAdapter:
    """A verified adapter in memory.

    Attributes:
        layers: Its updates by the layer's name.
        answering: How many requests hold it.
        alone: Its layers as they are put on the model when no other adapter is in use.
        serial: Of no other adapter in this process, also none that had or will have its name.
    """

    name: str
    layers: Mapping[str, Update]
    answering: int = 0
    alone: _Built | None = None
    serial: int = field(default_factory=lambda: next(_serials))


class AdapterStack:
    """The adapters in use, side by side on the model's linear layers.

    A layer multiplies with the columns of all of them at once and then zeroes, row by row, those of the other adapters:
    the same few operations a layer, however many adapters there are. A row of the base gets exactly nothing added.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._modules = dict(model.named_modules())
        self._adapters: tuple[LoraAdapter, ...] = ()
        self._built = _Built((), {})

    def hold(self, rows: Sequence[LoraAdapter | None]) -> None:
        """Put the adapters of ``rows`` on the model, and take those off that none of them uses."""
        wanted = tuple(dict.fromkeys(adapter for adapter in rows if adapter is not None))
        if set(wanted) == set(self._adapters):
            return
        self.clear()
        self._adapters = wanted
        if len(wanted) == 1:  # kept with the adapter: most requests come one by one
            wanted[0].alone = wanted[0].alone or _Built(wanted, self._modules)
            self._built = wanted[0].alone
        else:
            self._built = _Built(wanted, self._modules)
        self._built.install()

    def assign(self, rows: Sequence[LoraAdapter | None]) -> None:
        """Set the adapter of each row in the batches to come; ``None`` is the base."""
        import torch

        number = {adapter: n for n, adapter in enumerate(self._adapters)}
        owners = torch.tensor([-1 if adapter is None else number[adapter] for adapter in rows])
        masks: dict[Any, Tensor | None] = {}
        for family in self._built.families:
            key = family.owners, family.down.device
            if key not in masks:
                foreign = owners[:, None] != torch.tensor(family.owners)
                masks[key] = foreign.to(family.down.device) if bool(foreign.any()) else None
            family.assign(len(rows), masks[key])

    def clear(self) -> None:
        """Leave the model as it was."""
        self._built.remove()
        self._adapters, self._built = (), _Built((), {})


class _Built:
    """The layers of some adapters, ready to be put on the model."""

    def __init__(self, adapters: tuple[LoraAdapter, ...], modules: Mapping[str, Any]) -> None:
        self.families: list[_Family] = []
        self._layers: list[_Layer] = []
        groups: dict[tuple[str, int], list[str]] = {}
        for name, inputs in {n: update.down.shape[0] for a in adapters for n, update in a.layers.items()}.items():
            groups.setdefault((_family(name), inputs), []).append(name)
        for names in groups.values():
            updates = [[(n, a.layers[name]) for n, a in enumerate(adapters) if name in a.layers] for name in names]
            family = _Family(names[0], updates)
            self.families.append(family)
            for place, name in enumerate(names):
                self._layers.append(_Layer(modules[name], family, place, updates[place]))

    def install(self) -> None:
        for layer in self._layers:
            layer.install()

    def remove(self) -> None:
        for layer in self._layers:
            layer.remove()
        for family in self.families:
            family.assign(0, None)


class _Family:
    """Layers that are usually given the same tensor, and then multiply with their ``down`` at once.

    Attributes:
        owners: The number of each column's adapter.
    """

    def __init__(self, name: str, updates: Sequence[Sequence[tuple[int, Update]]]) -> None:
        import torch

        self.down = torch.cat([update.down for layer in updates for _, update in layer], dim=1)
        self.owners = tuple(n for layer in updates for n, update in layer for _ in range(update.up.shape[0]))
        self._name, self._width = name, len(self.owners)
        self._ranks = [sum(update.up.shape[0] for _, update in layer) for layer in updates]
        self.assign(0, None)

    def assign(self, rows: int, foreign: Tensor | None) -> None:
        """Set the number of rows to come, and which columns are of another row's adapter; ``None``: no column."""
        self._rows, self._foreign = rows, foreign
        self._x: Tensor | None = None
        self._low: Sequence[Tensor] = ()

    def low(self, x: Tensor) -> Sequence[Tensor]:
        """``x @ down`` for each of the layers, zero where a column is another row's."""
        if x is self._x:
            return self._low
        if x.dim() != 3 or x.shape[0] != self._rows:
            raise ModelError(
                f"{self._name} is given {tuple(x.shape)}, not every token of {self._rows} answers: adapters of a layer "
                "that tokens are routed to cannot be served beside others; merge the adapter into its base"
            )
        low = x.flatten(0, 1).mm(self.down)
        if self._foreign is not None:  # not multiplied by zero: what overflows there must not become a NaN here
            tokens = low if x.shape[1] == 1 else low.view(self._rows, -1, self._width).transpose(0, 1)
            tokens.masked_fill_(self._foreign, 0.0)
        self._x, self._low = x, low.split(self._ranks, dim=1) if len(self._ranks) > 1 else (low,)
        return self._low


class _Layer:
    """A linear layer with the updates of several adapters, in the place of its ``forward``.

    A forward hook would do, but is a fifth of what adapters take of a small model's time.
    """

    def __init__(self, module: Any, family: _Family, place: int, updates: Sequence[tuple[int, Update]]) -> None:
        import torch

        self._up = torch.cat([update.up for _, update in updates])
        self._outputs = self._up.shape[1]
        self._module, self._family, self._place = module, family, place
        self._own = module.__dict__.get("forward")  # accelerate puts one here when it spreads a model over devices
        self._plain = module.forward
        if self._own is None and type(module) is torch.nn.Linear:
            self._plain = partial(torch.nn.functional.linear, weight=module.weight, bias=module.bias)

    def install(self) -> None:
        self._module.forward = self

    def remove(self) -> None:
        if self._own is None:
            del self._module.forward
        else:
            self._module.forward = self._own

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = self._plain(x)
        output.view(-1, self._outputs).addmm_(self._family.low(x)[self._place], self._up)
        return output


def _family(name: str) -> str:
    """The names of layers that are given the same tensor become one; a wrong guess costs time, not exactness."""
    parent, _, own = name.rpartition(".")
    return f"{parent}.{next((family for family in FAMILIES if own in family), own)}"
