"""That what was told is still there: the loop's tables know what the ledger must hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from loraloop.errors import RegistryError
from loraloop.loop.schema import decisions
from loraloop.protocols import Database
from loraloop.workflows.retraining.outbox import LEDGER

if TYPE_CHECKING:
    from loraloop.registry.mlflow import MlflowRegistry

NAMED = 3
"""Decisions that an error names."""


def audit(database: Database, model: str, registry: MlflowRegistry) -> None:
    """See that a model's ledger holds, with every decision that it was told.

    A chain of hashes says nothing of lines that were cut off at its end, nor of a file that was emptied.

    Raises:
        RegistryError: The ledger was altered, or decisions are missing; names the first of them.
    """
    told = _told(database, model)  # read first: a decision is entered before it is noted as told
    entered = {entry.numbers.get("decision") for entry in registry.history()}
    missing = [each for each in told if each not in entered]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise RegistryError(
            f"the ledger of {model} lacks decisions that were written into it: {', '.join(missing[:NAMED])}{more}. It "
            "was cut or replaced: restore it from a copy"
        )


def _told(database: Database, model: str) -> list[str]:
    wanted = sa.select(decisions.c.id, decisions.c.told).where(decisions.c.model == model).order_by(decisions.c.nth)
    with database.read() as connection:
        return [row.id for row in connection.execute(wanted) if LEDGER in row.told]
