"""Command lines that Hydra's grammar refuses, in the project's own words."""

from __future__ import annotations

from hydra.errors import HydraException

from loraloop.__main__ import CONF
from loraloop.cli.explain import explain


def test_every_unreadable_argument_is_named():
    """A key and its value parted by a blank, and a value with a bracket, are each told what to write instead."""
    arguments = ["--cfg", "job", "source.runs 1", "source.path=a (1).jsonl"]
    assert explain(arguments, HydraException("as Hydra says"), CONF).problems == (
        "source.runs 1: write KEY=VALUE, such as trainer.epochs=1",
        "source.path=a (1).jsonl: the value holds a character with a meaning of its own in Hydra's grammar; "
        "quote it like this: 'source.path=\"a (1).jsonl\"'",
    )
