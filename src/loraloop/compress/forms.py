"""What an adapter is compressed to: the choices of the group ``compress``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loraloop.compress import svd
from loraloop.compress.adapter import Adapter
from loraloop.core.part import part
from loraloop.errors import ConfigError

ENERGY = 0.99
Rank = Annotated[int, Field(ge=1)]


@part
class Svd:
    """A lower rank, the same for all layers or each layer's own.

    Attributes:
        energy: Each layer keeps the fewest singular values with this share of the sum of the squares; ``None`` is 0.99.
        rank: A rank for all layers instead.
    """

    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    rank: Rank | None = None

    @model_validator(mode="after")
    def _one_measure(self) -> Svd:
        if self.energy is not None and self.rank is not None:
            raise ValueError(f"energy={self.energy:g} and rank={self.rank} are two measures: give one of them")
        return self

    def forms(self, adapter: Adapter) -> Iterator[tuple[str, Adapter]]:
        """The name and the smaller form.

        Raises:
            ConfigError: The adapter has no larger rank than ``rank``.
        """
        if self.rank is None:
            energy = ENERGY if self.energy is None else self.energy
            yield f"energy {energy:g}", svd.smaller(adapter, svd.by_energy(energy))
            return
        if self.rank >= adapter.rank:
            raise ConfigError(
                f"compress.rank={self.rank} must be below the adapter's largest rank, which is {adapter.rank}"
            )
        yield f"rank {self.rank}", svd.smaller(adapter, svd.by_rank(self.rank))


@part
class Packed:
    """The same weights in 8 or 4 bits, made float32 again where they are loaded.

    Attributes:
        storage: ``int8``, with a scale for each component of the rank, or ``nf4``, with a scale for each 64 values.
    """

    storage: Literal["int8", "nf4"] = "int8"

    def forms(self, adapter: Adapter) -> Iterator[tuple[str, Adapter]]:
        """The name and the smaller form."""
        yield self.storage, adapter.kept(self.storage)


@part
class Table:
    """Several forms, to be compared.

    Attributes:
        ranks: Those below the adapter's are tried, by SVD.
        storages: How the adapter's own weights are kept, at its rank.
    """

    ranks: tuple[Rank, ...] = (64, 32, 16, 8, 4)
    storages: tuple[Literal["int8", "nf4"], ...] = ("int8", "nf4")

    def forms(self, adapter: Adapter) -> Iterator[tuple[str, Adapter]]:
        """Names and smaller forms, the largest rank first."""
        for rank in sorted({rank for rank in self.ranks if rank < adapter.rank}, reverse=True):
            yield f"rank {rank}", svd.smaller(adapter, svd.by_rank(rank))
        for storage in self.storages:
            yield storage, adapter.kept(storage)
