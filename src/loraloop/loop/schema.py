"""The loop's tables, in the database of the sessions; the same in SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from loraloop.errors import ConfigError
from loraloop.protocols import Database

VERSION = 1
"""Version of the tables; tables of an earlier version are upgraded in place, those of a later one are refused."""

metadata = sa.MetaData()

facts = sa.Table("loop_facts", metadata, sa.Column("version", sa.Integer, primary_key=True))

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


def prepare(database: Database) -> None:
    """Create missing tables and upgrade those of earlier versions; several processes may do so at once.

    Raises:
        ConfigError: The tables are of a later version.
    """
    with database.read() as connection:
        if _version(connection) == VERSION:
            return
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            # Of two processes that would make the same tables at once, one waits; a write to SQLite is alone anyway.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('loraloop loop'))")
        found = _version(connection)
        if found is not None and found > VERSION:
            raise ConfigError(
                f"{database.name} holds tables of the loop of version {found}, and this loraloop reads version "
                f"{VERSION}: use the loraloop that wrote them, or another database with feedback.url=URL"
            )
        if found is None or found < VERSION:
            # Tables without a version are those of version 1.
            upgrade(connection, found or 1)
            _create(connection)
            connection.execute(facts.delete())
            connection.execute(facts.insert().values(version=VERSION))


def upgrade(connection: sa.Connection, found: int) -> None:
    """Bring the tables of version ``found``, if there are any, to this one."""


def _version(connection: sa.Connection) -> int | None:
    if not sa.inspect(connection).has_table(facts.name):
        return None
    return connection.scalar(sa.select(facts.c.version))


def _create(connection: sa.Connection) -> None:
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            connection.execute(CreateIndex(index, if_not_exists=True))
