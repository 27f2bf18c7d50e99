"""The sessions of a database: the one query over its tables, and the record that a row is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from loraloop.core.same_task import answer_key
from loraloop.records import Rating, Session

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RowMapping

QUERY = """
SELECT {columns},
       given.stars, given.comment, given.issues, given.time AS rated, {key} AS rated_key,
       implied.stars AS implied, corrections.text AS correction
FROM sessions
LEFT JOIN ratings AS given ON given.session = sessions.id AND given.kind = 'explicit'
LEFT JOIN ratings AS implied ON implied.session = sessions.id AND implied.kind = 'implicit'
LEFT JOIN corrections ON corrections.id = (
  SELECT max(reviewed.id) FROM corrections AS reviewed
  WHERE reviewed.session = sessions.id AND reviewed.status IN ('accepted', 'edited')
)
WHERE {where}
ORDER BY {order}
"""
"""What a person gave, what is implied, and the correction that was reviewed last."""
REFUSED = """
SELECT session, status, proposed, text FROM corrections WHERE status IN ('rejected', 'edited') ORDER BY id
"""
JSON = ("prompt", "tools", "answer", "iterations", "issues", "correction")
FIELDS = frozenset(Session.__dataclass_fields__) - {"prompt", "rating", "refused", "follows"}
ALL = "sessions.*"  # a database of version 1, which nobody brought up to date, has fewer columns
PLAIN = ("id", "time", "answered", "role", "status", "duration", "conversation", "client", "rollout", "asked_key")
WITHOUT_TEXTS = ", ".join(f"sessions.{name}" for name in PLAIN)
PAGE = 500
"""Rows that are fetched at once, so that a long table takes no more memory than a short one."""
KEYED = 3
"""The version of the tables from which on a rating has its key."""


def select(
    connection: Connection,
    where: str = "true",
    *,
    order: str = "sessions.id",
    texts: bool = True,
    keyed: bool = True,
    paged: bool = False,
    **values: Any,
) -> Iterator[Session]:
    """Sessions with the rating that a person gave, the implied one and the correction that was reviewed last.

    Args:
        connection: Of SQLAlchemy, to SQLite or PostgreSQL.
        where: A condition in SQL; columns are named by their tables, values are bound as ``:name``.
        order: In SQL, a limit included.
        texts: Whether prompt, answer and iterations are read too; without them ``prompt`` is empty.
        keyed: Whether the tables are of version :data:`KEYED` or later.
        paged: Whether rows are fetched :data:`PAGE` at a time, for results of any length.
        values: What ``:name`` in ``where`` and ``order`` stands for.
    """
    import sqlalchemy as sa

    columns, key = ALL if texts else WITHOUT_TEXTS, "given.key" if keyed else "NULL"
    query = sa.text(QUERY.format(columns=columns, key=key, where=where, order=order))
    typed, options = query.columns(**dict.fromkeys(JSON, sa.JSON())), {"yield_per": PAGE} if paged else {}
    for row in connection.execute(typed, values, execution_options=options).mappings():
        yield _session(row)


def refused(connection: Connection) -> dict[str, tuple[str, ...]]:
    """By session, the corrections that a person rejected in review, and those that they replaced by other words."""
    import sqlalchemy as sa

    query = sa.text(REFUSED).columns(proposed=sa.JSON(), text=sa.JSON())
    found: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(query):
        if row.status == "rejected" or answer_key(row.proposed) != answer_key(row.text):
            found[row.session] = (*found.get(row.session, ()), row.proposed)
    return found


def _session(row: RowMapping) -> Session:
    rating = None
    if row["stars"] is not None:
        rating = Rating(stars=row["stars"], comment=row["comment"], issues=tuple(row["issues"]))
    values = {name: row[name] for name in FIELDS & row.keys()}
    return Session(**values, prompt=row.get("prompt", ""), rating=rating)
