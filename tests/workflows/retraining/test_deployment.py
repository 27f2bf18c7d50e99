"""Deployments: which version is served, which was before, and which roles can be retrained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.errors import ConfigError
from loraloop.registry.ledger import Ledger
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.workflows.retraining.deployment import Deployment, deployment_of


def moved(folder: Path, *moves: tuple[str, int | None]) -> Deployment:
    """A deployment whose champion was moved so."""
    ledger = Ledger(folder / "loraloop-ocr.ledger.jsonl")
    for event, version in moves:
        ledger.append(event, version, "a reason", alias="champion")
        ledger.append("promote", 9, "not about the champion", alias="canary")
    return Deployment("validator", "ocr", "loraloop-ocr", MlflowRegistry(name="loraloop-ocr", folder=folder))


def test_the_previous_version_is_the_one_that_was_replaced(tmp_path):
    """Before the first version there is none; after a promotion it is the one that was replaced."""
    assert moved(tmp_path / "none").previous() is None
    assert moved(tmp_path / "one", ("promote", 1)).previous() is None
    assert moved(tmp_path / "two", ("promote", 1), ("observed", 3)).previous() == 1


def test_a_version_that_was_rolled_back_does_not_come_back(tmp_path):
    """Two rollbacks in a row go back two versions, not to and fro between a bad one and the one before."""
    back = moved(tmp_path, ("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2))
    assert back.previous() == 1
    again = moved(tmp_path, ("rollback", 1), ("promote", 4))
    assert again.previous() == 1


def test_without_a_champion_the_last_one_comes_back(tmp_path):
    """An alias that was taken away goes back to the version that it was taken from, not to the one before that."""
    made = moved(tmp_path, ("promote", 1), ("promote", 2), ("observed", None))
    assert (made.active(), made.previous()) == (None, 2)
    again = moved(tmp_path, ("rollback", 2))
    assert (again.active(), again.previous()) == (2, 1)
    assert moved(tmp_path / "none", ("observed", None)).previous() is None


@pytest.mark.parametrize(
    ("answers", "names", "said"),
    [
        ("ocr@champion", {"ocr": "my model"}, r"^server\.names\.ocr=my model: a registered model's name begins with"),
        ("a b@champion", {}, r"^server\.roles\.validator names 'a b': a registered model's name begins with"),
        ("base", {}, r"write server\.roles\.validator=NAME@champion, or"),
        ("ocr@3", {}, r"write server\.roles\.validator=ocr@champion, or"),
    ],
)
def test_a_role_that_cannot_be_retrained_is_refused_with_the_way_out(answers, names, said):
    """A name that no model can have, the base and a pinned version are refused in one sentence with the way out."""
    with pytest.raises(ConfigError, match=said):
        deployment_of("validator", {"validator": answers}, names, MlflowRegistry())


def test_a_version_is_active_since_the_entry_that_moved_the_alias(tmp_path):
    """An entry that points the alias at the same version again does not change when it became active."""
    made = moved(tmp_path, ("promote", 1), ("promote", 1), ("promote", 2))
    first = made.registry.history()[0]
    assert made.active_since(1) == first.time
    assert made.active() == 2


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_rollbacks_lead_back_along_the_promotions(tmp_path_factory, versions):
    """After any promotions, each rollback goes back to a version that was promoted, never the same twice in a row."""
    folder = tmp_path_factory.mktemp("deployment")
    made = moved(folder, *(("promote", version) for version in versions))
    seen = [made.active()]
    while (previous := made.previous()) is not None:
        assert previous in versions
        assert previous != seen[-1]
        seen.append(previous)
        made = moved(folder, ("rollback", previous))
        assert len(seen) <= len(versions)
