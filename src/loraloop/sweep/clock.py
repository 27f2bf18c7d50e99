"""The time that a study's trials are stamped with: that of the machine on which the sweep is.

No trial, claim or pruning depends on it. People who watch see how long a trial runs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from loraloop.sweep import storage

if TYPE_CHECKING:
    import optuna

CLOCK = "clock"
"""Attribute of a study: seconds by which the sweep's local time is ahead of the database's UTC."""


def keep(study: optuna.Study) -> None:
    """Write down how far this machine's clock is from the database's; a file is on one machine."""
    if (ahead := _ahead(study._storage)) is not None:
        study.set_user_attr(CLOCK, ahead)


def now(study: optuna.Study) -> datetime:
    """The present local time, by the clock of the machine on which the sweep is."""
    there, here = study.user_attrs.get(CLOCK), _ahead(study._storage)
    ours = datetime.now()
    return ours if there is None or here is None else ours + timedelta(seconds=there - here)


def _ahead(backend: Any) -> float | None:
    from sqlalchemy import text

    engine = getattr(backend, "_backend", backend).engine
    if engine.dialect.name != "postgresql":
        return None
    with storage.explained(str(engine.url)), engine.connect() as connection:
        theirs = connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
        utc = datetime.fromtimestamp(float(theirs), UTC).replace(tzinfo=None)
        return (datetime.now() - utc).total_seconds()
