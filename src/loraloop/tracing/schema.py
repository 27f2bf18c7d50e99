"""The tables, in the database of the sessions: what waits to be exported, and which assessments were taken back."""

from __future__ import annotations

import sqlalchemy as sa

from loraloop.protocols import Database

metadata = sa.MetaData()

_sessions = sa.Table(
    "sessions", metadata, sa.Column("id", sa.String, primary_key=True)
)  # made by the store of sessions

exports = sa.Table(
    "trace_exports",
    metadata,
    sa.Column("destination", sa.String, primary_key=True, comment="mlflow or otlp"),
    sa.Column("session", sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tries", sa.Integer, nullable=False, comment="that failed; those with fewer go first"),
    sa.Column("sent", sa.String, comment="ISO 8601, UTC; none while it waits"),
    sa.Column("rated", sa.Boolean, nullable=False, comment="whether its rating was sent too"),
    sa.Column("corrected", sa.Integer, nullable=False, comment="id of the correction that was sent last"),
)
waiting = sa.Index(
    "ix_trace_exports_waiting",
    exports.c.destination,
    exports.c.tries,
    sqlite_where=exports.c.sent.is_(None),
    postgresql_where=exports.c.sent.is_(None),
)

assessments = sa.Table(
    "trace_assessments",
    metadata,
    sa.Column("id", sa.String, primary_key=True, comment="MLflow's"),
    sa.Column("session", sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("became", sa.String, nullable=False, comment="what it was taken for"),
    sa.Column("time", sa.String, nullable=False, comment="ISO 8601, UTC"),
)


def prepare(database: Database) -> None:
    """Make the tables where they are missing; several processes may do so at once."""
    with database.read() as connection:
        if sa.inspect(connection).has_table(assessments.name):
            return
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('loraloop traces'))")
        metadata.create_all(connection, tables=[exports, assessments])
