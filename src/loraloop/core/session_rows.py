"""The sessions of a database: the one query over its tables, and the record that a row is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from loraloop.records import Rating, Session

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RowMapping

QUERY = """
SELECT {columns},
       given.stars, given.comment, given.issues, given.time AS rated,
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
JSON = ("prompt", "answer", "iterations", "issues", "correction")
FIELDS = frozenset(Session.__dataclass_fields__) - {"prompt", "rating"}
ALL = "sessions.*"  # a database of version 1, which nobody brought up to date, has fewer columns
WITHOUT_TEXTS = ", ".join(
    f"sessions.{name}"
    for name in ("id", "time", "answered", "role", "status", "duration", "conversation", "client", "rollout")
)


def select(
    connection: Connection,
    where: str = "true",
    *,
    order: str = "sessions.id",
    texts: bool = True,
    **values: Any,
) -> Iterator[Session]:
    """Sessions with the rating that a person gave, the implied one and the correction that was reviewed last.

    Args:
        connection: Of SQLAlchemy, to SQLite or PostgreSQL.
        where: A condition in SQL; columns are named by their tables, values are bound as ``:name``.
        order: In SQL, a limit included.
        texts: Whether prompt, answer and iterations are read too; without them ``prompt`` is empty.
        values: What ``:name`` in ``where`` and ``order`` stands for.
    """
    import sqlalchemy as sa

    query = sa.text(QUERY.format(columns=ALL if texts else WITHOUT_TEXTS, where=where, order=order))
    for row in connection.execute(query.columns(**dict.fromkeys(JSON, sa.JSON())), values).mappings():
        yield _session(row)


def _session(row: RowMapping) -> Session:
    rating = None
    if row["stars"] is not None:
        rating = Rating(stars=row["stars"], comment=row["comment"], issues=tuple(row["issues"]))
    values = {name: row[name] for name in FIELDS & row.keys()}
    return Session(**values, prompt=row.get("prompt", ""), rating=rating)
