"""Who reigned before: what a rollback goes back to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.errors import ConfigError
from loraloop.registry.ledger import Ledger
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.workflows.retraining import deployment as lines
from loraloop.workflows.retraining.deployment import Deployment


def line(folder: Path, *moves: tuple[str, int | None]) -> Deployment:
    """A line whose champion was moved so."""
    ledger = Ledger(folder / "loraloop-ocr.ledger.jsonl")
    for event, version in moves:
        ledger.append(event, version, "a reason", alias="champion")
        ledger.append("promote", 9, "not about the champion", alias="canary")
    return Deployment("validator", "ocr", "loraloop-ocr", MlflowRegistry(name="loraloop-ocr", folder=folder))


def test_the_version_before_is_the_last_that_reigned(tmp_path):
    """Before the first version there is none; after a promotion it is the one that was replaced."""
    assert line(tmp_path / "none").before() is None
    assert line(tmp_path / "one", ("promote", 1)).before() is None
    assert line(tmp_path / "two", ("promote", 1), ("observed", 3)).before() == 1


def test_what_a_rollback_took_back_does_not_come_again(tmp_path):
    """Two rollbacks in a row go back two versions, not to and fro between a bad one and the one before."""
    reigned = line(tmp_path, ("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2))
    assert reigned.before() == 1
    again = line(tmp_path, ("rollback", 1), ("promote", 4))
    assert again.before() == 1


def test_where_nobody_reigns_the_last_that_did_comes_back(tmp_path):
    """An alias that was taken away goes back to the version that it was taken from, not to the one before that."""
    made = line(tmp_path, ("promote", 1), ("promote", 2), ("observed", None))
    assert (made.reigning(), made.before()) == (None, 2)
    again = line(tmp_path, ("rollback", 2))
    assert (again.reigning(), again.before()) == (2, 1)
    assert line(tmp_path / "none", ("observed", None)).before() is None


@pytest.mark.parametrize(
    ("answers", "names", "said"),
    [
        ("ocr@champion", {"ocr": "my model"}, r"^server\.names\.ocr=my model: a registered model's name begins with"),
        ("a b@champion", {}, r"^server\.roles\.validator names 'a b': a registered model's name begins with"),
        ("base", {}, r"write server\.roles\.validator=NAME@champion, or"),
        ("ocr@3", {}, r"write server\.roles\.validator=ocr@champion, or"),
    ],
)
def test_what_is_no_line_says_how_to_write_one(answers, names, said):
    """A name that no model can have, the base and a pinned version are refused in one sentence with the way out."""
    with pytest.raises(ConfigError, match=said):
        lines.line("validator", {"validator": answers}, names, MlflowRegistry())


def test_a_reign_begins_with_the_entry_that_moved_the_alias(tmp_path):
    """An alias that is pointed at the same version again does not begin a new reign."""
    made = line(tmp_path, ("promote", 1), ("promote", 1), ("promote", 2))
    first = made.registry.history()[0]
    assert made.since(1) == first.time
    assert made.reigning() == 2


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_rollbacks_lead_back_along_the_promotions(tmp_path_factory, versions):
    """After any promotions, rollbacks one by one come to a version that reigned, never the same twice in a row."""
    folder = tmp_path_factory.mktemp("line")
    made = line(folder, *(("promote", version) for version in versions))
    seen = [made.reigning()]
    while (before := made.before()) is not None:
        assert before in versions
        assert before != seen[-1]
        seen.append(before)
        made = line(folder, ("rollback", before))
        assert len(seen) <= len(versions)
