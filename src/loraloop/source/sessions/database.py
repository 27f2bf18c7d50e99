"""Sessions out of the database that a server keeps them in (``feedback.url``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import orjson

from loraloop.errors import ConfigError, DataError
from loraloop.records import Quarantined
from loraloop.source.sessions.log import Agent, Session, problem

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

SUFFIXES = frozenset({".db", ".sqlite", ".sqlite3"})
JSON = ("prompt", "answer", "iterations", "issues", "correction")
QUERY = """
SELECT s.id, s.prompt, s.answer, s.iterations, s.answered, s.role, s.status, s.duration, s.time,
       r.stars, r.comment, r.issues,
       (SELECT c.text FROM corrections c WHERE c.session = s.id AND c.id = (
         SELECT max(d.id) FROM corrections d WHERE d.session = s.id AND d.status IN ('accepted', 'edited')
       )) AS correction
FROM sessions s LEFT JOIN ratings r ON r.session = s.id AND r.kind = 'explicit'
ORDER BY s.id
"""
"""Ratings that people gave, and corrections that were reviewed: nothing else is learned from."""


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


def read(url: URL) -> tuple[dict[str, Session], list[Quarantined]]:
    """Every session, in the order of their ids; one that cannot be used is set aside.

    Raises:
        DataError: The database cannot be read.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    query = sa.text(QUERY).columns(**dict.fromkeys(JSON, sa.JSON()))
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        raise DataError(f"source.path={url.render_as_string()} holds no sessions that can be read: {said}") from error
    finally:
        engine.dispose()
    sessions: dict[str, Session] = {}
    quarantined: list[Quarantined] = []
    for row in rows:
        try:
            sessions[row["id"]] = Session.model_validate_json(orjson.dumps(_document(dict(row))))
        except (TypeError, ValueError) as error:
            quarantined.append(Quarantined(row["id"], problem(error)))
    return sessions, quarantined


def _document(row: dict[str, Any]) -> dict[str, Any]:
    instruction, task = _parted(row["prompt"])
    return {
        "task": task,
        "instruction": instruction,
        "iterations": row["iterations"],
        "user_rating": row["stars"],
        "feedback_comment": row["comment"],
        "what_went_wrong": row["issues"],
        "lora_version": row["answered"],
        "success": None if row["status"] is None else row["status"] == "ok",
        "duration": row["duration"],
        "agent": row["role"] if row["role"] in get_args(Agent) else None,
        "answer": row["answer"],
        "correction": row["correction"],
        "created": row["time"],
    }


def _parted(prompt: str | list[dict[str, str]]) -> tuple[str, str]:
    """System messages as the instruction and the others as the input, as a server makes its prompt of them."""
    if isinstance(prompt, str):
        return "", prompt
    told = [turn["content"] for turn in prompt if turn["role"] == "system"]
    said = [turn["content"] for turn in prompt if turn["role"] != "system"]
    return ("\n".join(told), "\n".join(said)) if said else ("", "\n".join(told))
