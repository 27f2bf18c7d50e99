"""The tables: sessions, ratings, corrections and assessments, the same in SQLite and PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

VERSION = 5
"""Version of the tables; tables of an earlier version are upgraded in place, those of a later one are refused."""

metadata = sa.MetaData()

facts = sa.Table("loraloop", metadata, sa.Column("version", sa.Integer, primary_key=True))

# Prompts and answers are JSON, which holds every text; a text of PostgreSQL holds no NUL character.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("time", sa.String, index=True, comment="ISO 8601, UTC"),
    sa.Column("asked", sa.String, comment="the model as the client named it"),
    sa.Column("answered", sa.String, comment="base or an immutable version"),
    sa.Column("role", sa.String),
    sa.Column("prompt", sa.JSON, nullable=False),
    sa.Column("tools", sa.JSON(none_as_null=True), comment="JSON schemas of the tools that were offered"),
    sa.Column("answer", sa.JSON(none_as_null=True)),
    sa.Column("iterations", sa.JSON(none_as_null=True), comment="of an imported session: screens and tool calls"),
    sa.Column("status", sa.String, comment="ok, error, timeout or cancelled"),
    sa.Column("duration", sa.Float, comment="seconds"),
    sa.Column("first_token", sa.Float, comment="seconds"),
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("retries", sa.Integer, nullable=False, default=0),
    sa.Column("conversation", sa.String, comment="what the client says that it is part of"),
    sa.Column("conversation_id", sa.String, index=True, comment="what it is part of: see feedback.conversations"),
    sa.Column("next_past", sa.String, index=True, comment="hash of the past that a request which goes on repeats"),
    sa.Column("client", sa.String, comment="who asked"),
    sa.Column("rollout", sa.String, comment="under which rollout the version was chosen"),
    sa.Column("asked_key", sa.String, comment="name of the API key that the request came with"),
    sa.Index("ix_sessions_answered_time", "answered", "time"),
    sa.Index("ix_sessions_rollout_time", "rollout", "time"),
)

ratings = sa.Table(
    "ratings",
    metadata,
    sa.Column("session", sa.ForeignKey("sessions.id"), primary_key=True),
    sa.Column("kind", sa.String, sa.CheckConstraint("kind IN ('explicit', 'implicit')"), primary_key=True),
    sa.Column("stars", sa.Integer, sa.CheckConstraint("stars BETWEEN 1 AND 5"), nullable=False),
    sa.Column("comment", sa.Text, nullable=False, default=""),
    sa.Column("issues", sa.JSON, nullable=False, default=list),
    sa.Column("time", sa.String, nullable=False, comment="ISO 8601, UTC"),
    sa.Column("key", sa.String, comment="name of the API key that it came with; none with a rating link"),
    sa.Column("claimed", sa.String, comment="who rates, as the request says; nobody has proved it"),
    sa.Index("ix_ratings_kind_time", "kind", "time"),
)

corrections = sa.Table(
    "corrections",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("session", sa.ForeignKey("sessions.id"), nullable=False, index=True),
    sa.Column("source", sa.String, nullable=False, comment="user, sibling, or review for one that came reviewed"),
    sa.Column("status", sa.String, sa.CheckConstraint("status IN ('proposed', 'accepted', 'edited', 'rejected')")),
    sa.Column("proposed", sa.JSON, nullable=False),
    sa.Column("text", sa.JSON, nullable=False, comment="as it was accepted"),
    sa.Column("time", sa.String, nullable=False, comment="of the proposal"),
    sa.Column("decided", sa.String, comment="when it was reviewed"),
)

# As assessments: made where it is missing.
reviewers = sa.Table(
    "reviewers",
    metadata,
    sa.Column("correction", sa.ForeignKey("corrections.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.String, nullable=False, comment="name of the API key with which it was decided on the page"),
)

conversation_ratings = sa.Table(
    "conversation_ratings",
    metadata,
    sa.Column("conversation", sa.String, primary_key=True, comment="sessions.conversation_id"),
    sa.Column("stars", sa.Integer, sa.CheckConstraint("stars BETWEEN 1 AND 5"), nullable=False),
    sa.Column("comment", sa.Text, nullable=False, default=""),
    sa.Column("issues", sa.JSON, nullable=False, default=list),
    sa.Column("time", sa.String, nullable=False, comment="ISO 8601, UTC"),
    sa.Column("key", sa.String, comment="as that of ratings"),
    sa.Column("claimed", sa.String, comment="as that of ratings"),
)

next_turns = sa.Table(
    "next_turns",
    metadata,
    sa.Column("session", sa.ForeignKey("sessions.id"), primary_key=True, comment="the answer that it is about"),
    sa.Column("signal", sa.String, nullable=False, comment="again, corrects or thanks"),
    sa.Column("time", sa.String, nullable=False, comment="ISO 8601, UTC"),
)

erased = sa.Table(
    "erased",
    metadata,
    sa.Column("session", sa.String, primary_key=True, comment="an id alone: no import brings it back"),
    sa.Column("time", sa.String, nullable=False, comment="ISO 8601, UTC"),
)

# Apart from ratings: nothing is learned or decided from what a judge or a program said. No version brought it, since
# it is made where it is missing and earlier versions do not look at it.
assessments = sa.Table(
    "assessments",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("session", sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("source", sa.String, nullable=False, comment="human, judge, code or unknown"),
    sa.Column("by", sa.String, nullable=False, comment="who it was, as the log names them"),
    sa.Column("kind", sa.String, nullable=False, comment="feedback, expectation, preference or cost"),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("value", sa.JSON(none_as_null=True)),
    sa.Column("rationale", sa.JSON, nullable=False),
    sa.Column("time", sa.String, comment="ISO 8601, UTC"),
)


def upgrade(connection: Connection, found: int) -> None:
    """Bring the tables of version ``found`` to this one: new columns are empty for what was there before."""
    if found < 2:
        for name in ("conversation", "client", "rollout"):
            connection.exec_driver_sql(f"ALTER TABLE sessions ADD COLUMN {name} VARCHAR")
        connection.exec_driver_sql("DROP INDEX IF EXISTS ix_sessions_answered")
    if found < 3:
        connection.exec_driver_sql("ALTER TABLE sessions ADD COLUMN asked_key VARCHAR")
        connection.exec_driver_sql("ALTER TABLE ratings ADD COLUMN key VARCHAR")
    if found < 4:
        connection.exec_driver_sql("ALTER TABLE sessions ADD COLUMN tools JSON")
    if found < 5:
        for name in ("conversation_id", "next_past"):
            connection.exec_driver_sql(f"ALTER TABLE sessions ADD COLUMN {name} VARCHAR")
        connection.exec_driver_sql("ALTER TABLE ratings ADD COLUMN claimed VARCHAR")
    for index in (*sessions.indexes, *ratings.indexes):
        index.create(connection, checkfirst=True)
    connection.execute(facts.update().values(version=VERSION))
