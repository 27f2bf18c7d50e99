"""The version of the loop's tables."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from loraloop.errors import ConfigError
from loraloop.loop import schema
from loraloop.loop.cycle import Event
from loraloop.loop.store import LoopStore


def version(loop: LoopStore) -> int | None:
    """The version in the database."""
    with loop.database.read() as connection:
        return connection.scalar(sa.select(schema.facts.c.version))


def test_tables_of_an_earlier_version_are_upgraded_once(loop, monkeypatch):
    """Tables without a version, as earlier ones had none, get it with what is new; what is in them stays."""
    cycle = loop.begin("validator", "m", 1, "default", Event(name="trigger", version=1, reason="low"))
    with loop.database.write() as connection:
        connection.exec_driver_sql("DROP TABLE loop_facts")
    upgraded = []

    def upgrade(connection: sa.Connection, found: int) -> None:
        upgraded.append(found)
        connection.exec_driver_sql("ALTER TABLE loop_ticks ADD COLUMN note VARCHAR")

    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr(schema, "upgrade", upgrade)
    for _ in range(2):
        again = LoopStore(loop.database)
    assert (upgraded, version(again)) == ([1], 2)
    assert again.cycles("validator") == [cycle]
    assert "note" in {each["name"] for each in sa.inspect(loop.database.engine).get_columns("loop_ticks")}


def test_tables_of_a_later_version_are_refused(loop):
    """A database that a later loraloop wrote is not touched, and the message says the way out."""
    with loop.database.write() as connection:
        connection.execute(schema.facts.update().values(version=9))
    with pytest.raises(ConfigError, match="of version 9, and this loraloop reads version 1: use the loraloop that"):
        LoopStore(loop.database)
    assert version(loop) == 9
