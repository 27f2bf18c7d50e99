"""Comparison of the ledger with the loop's tables, which know every event that was entered."""

from __future__ import annotations

import sqlalchemy as sa

from loraloop.errors import RegistryError
from loraloop.loop.schema import decisions
from loraloop.protocols import Database
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.workflows.retraining.outbox import LEDGER

NAMED = 3
"""Missing events that an error names."""


def audit(database: Database, model: str, registry: MlflowRegistry) -> None:
    """Check that a model's ledger is intact and has every event that was entered into it.

    The chain of hashes alone does not show lines that were cut off at the end, nor an emptied file.

    Raises:
        RegistryError: The ledger was altered, or events are missing; the message names the first of them.
    """
    expected = _entered(database, model)  # read first: an event is entered before the tables say so
    present = {entry.numbers.get("decision") for entry in registry.history()}
    missing = [each for each in expected if each not in present]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise RegistryError(
            f"the ledger of {model} lacks decisions that were written into it: {', '.join(missing[:NAMED])}{more}. It "
            "was cut or replaced: restore it from a copy"
        )


def _entered(database: Database, model: str) -> list[str]:
    wanted = sa.select(decisions.c.id, decisions.c.told).where(decisions.c.model == model).order_by(decisions.c.nth)
    with database.read() as connection:
        return [row.id for row in connection.execute(wanted) if LEDGER in row.told]
