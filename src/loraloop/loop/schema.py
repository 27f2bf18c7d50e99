"""The loop's tables, in the database of the sessions; the same in SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

metadata = sa.MetaData()

cycles = sa.Table(
    "loop_cycles",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("policy", sa.String, nullable=False),
    sa.Column("champion", sa.Integer, nullable=False),
    sa.Column("candidate", sa.Integer),
    sa.Column("rollout", sa.String),
    sa.Column("run", sa.String),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("began", sa.String, nullable=False, comment="ISO 8601, UTC"),
    sa.Column("changed", sa.String, nullable=False),
    sa.Column("ended", sa.String),
    sa.UniqueConstraint("role", "number"),
)

rollouts = sa.Table(
    "loop_rollouts",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("stable", sa.Integer, nullable=False),
    sa.Column("canary", sa.Integer, nullable=False),
    sa.Column("share", sa.Float, nullable=False),
    sa.Column("began", sa.String, nullable=False),
    sa.Column("ended", sa.String),
    sa.Column("judged", sa.JSON(none_as_null=True), comment="the latest verdict of the canary's rule, and its figures"),
)

decisions = sa.Table(
    "loop_decisions",
    metadata,
    sa.Column("nth", sa.Integer, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("cycle", sa.ForeignKey("loop_cycles.id"), index=True),
    sa.Column("event", sa.String, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("numbers", sa.JSON, nullable=False),
    sa.Column("alias", sa.String),
    sa.Column("alert", sa.Boolean, nullable=False),
    sa.Column("time", sa.String, nullable=False),
    sa.Column("told", sa.JSON, nullable=False, comment="where it is published: ledger, tracker, alerts"),
    sa.Column("done", sa.Boolean, nullable=False, default=False, comment="published everywhere"),
)

ticks = sa.Table(
    "loop_ticks",
    metadata,
    sa.Column("role", sa.String, primary_key=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("time", sa.String, nullable=False, comment="of the latest tick"),
    sa.Column("intact", sa.Boolean, nullable=False, comment="whether the ledger was intact"),
)


def _only(name: str, column: sa.Column[Any], ended: sa.Column[Any]) -> sa.Index:
    return sa.Index(name, column, unique=True, sqlite_where=ended.is_(None), postgresql_where=ended.is_(None))


INDEXES = (
    _only("loop_one_open_cycle", cycles.c.role, cycles.c.ended),
    _only("loop_one_rollout_per_model", rollouts.c.model, rollouts.c.ended),
    sa.Index("loop_untold", decisions.c.done, sqlite_where=~decisions.c.done, postgresql_where=~decisions.c.done),
)
"""They keep a role to one open cycle and a model to one running rollout, whichever process writes."""


def create(connection: sa.Connection) -> None:
    """Create missing tables and indexes; several processes may do so at once."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('loraloop loop'))")
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            connection.execute(CreateIndex(index, if_not_exists=True))
