"""Sessions out of the database that a server keeps them in (``feedback.url``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core.session_file import UNLEARNED, SessionFile, parse, problem
from loraloop.core.session_rows import KEYED, refused, select
from loraloop.errors import ConfigError, DataError
from loraloop.records import Quarantined, Session

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

SUFFIXES = frozenset({".db", ".sqlite", ".sqlite3"})


def address(path: str | Path) -> URL | None:
    """The database that ``path`` names by a URL or a file's suffix, if it names one.

    Raises:
        ConfigError: It is a URL of something else, or a file that is not there.
    """
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    text = str(path)
    if "://" not in text:
        if Path(path).suffix not in SUFFIXES or Path(path).is_dir():
            return None
        url = URL.create("sqlite", database=text)
    else:
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            raise ConfigError("source.path is no database URL: sqlite:///FILE or postgresql://USER@HOST/DB") from None
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite" or not Path(url.database or "").is_file():
        raise ConfigError(
            f"source.path={url.render_as_string()} is neither a SQLite file that is there nor a PostgreSQL database"
        )
    return url


def read(url: URL, where: str = "true", **values: Any) -> Iterator[Session | Quarantined]:
    """Sessions as their ``session.json`` would say them, in the order of the ids; a broken one is set aside.

    They are read page by page while they are asked for.

    Args:
        url: The database.
        where: Which sessions: a condition as :func:`loraloop.core.session_rows.select` takes it.
        values: What ``:name`` in it stands for.

    Raises:
        DataError: The database cannot be read.
    """
    with _connected(url) as connection:
        keyed = _version(connection) >= KEYED
        decided = refused(connection)
        for session in select(connection, where, keyed=keyed, paged=True, **values):
            known = replace(session, refused=decided.get(session.id, ()))
            try:
                yield parse(SessionFile.of(known).encode(), UNLEARNED).session(session.id)
            except (TypeError, ValueError) as error:
                yield Quarantined(session.id, problem(error))


def count(url: URL) -> int:
    """The number of sessions, rated or not.

    Raises:
        DataError: The database cannot be read.
    """
    import sqlalchemy as sa

    with _connected(url) as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM sessions")) or 0)


def undecided(url: URL) -> frozenset[str]:
    """Ids of the sessions with a correction that waits for review.

    Raises:
        DataError: The database cannot be read.
    """
    import sqlalchemy as sa

    with _connected(url) as connection:
        return frozenset(connection.scalars(sa.text("SELECT session FROM corrections WHERE status = 'proposed'")))


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        raise DataError(f"source.path={url.render_as_string()} holds no sessions that can be read: {said}") from error
    finally:
        engine.dispose()


def _version(connection: Connection) -> int:
    import sqlalchemy as sa

    return int(connection.scalar(sa.text("SELECT version FROM loraloop")) or 0)
