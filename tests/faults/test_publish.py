"""Faults of ``stage=publish``: what a killed one leaves, and what the next one makes of it."""

from __future__ import annotations

import json

import pytest

from faults.conftest import Broken
from loraloop.workflows import parity

PUBLISH = ("stage=publish", "publish=merged", "publish.path=out", "publish.rows=4")
MEASURING = "from loraloop.workflows import parity\nparity.measure = die"


@pytest.mark.fault("kill -9", "publish", "nothing at publish.path; the next publish removes the beginning")
def test_killed_while_it_is_measured(finished, told):
    """Kill -9 before the export appears leaves a hidden beginning, which the next publish removes."""
    Broken(finished).killed(MEASURING, *PUBLISH)
    (left,) = (finished.folder / "out").iterdir()
    assert (left.name[:20], left.suffix) == (".loraloop-v1-merged.", ".part")
    seen = finished(*PUBLISH)
    assert [path.name for path in (finished.folder / "out").iterdir()] == ["loraloop-v1-merged"]
    told(seen.line("published to"))


def test_what_a_killed_publish_did_not_note_is_noted_by_the_next(finished, monkeypatch):
    """The measurement appears with the export, so that an end between both and the registry loses nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(parity, "keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        finished.attempt(*PUBLISH)
    measured = json.loads((finished.folder / "out/loraloop-v1-merged/parity-transformers.json").read_text())["measured"]
    (manifest,) = finished.folder.glob("mlruns/artifacts/adapters/loraloop/*/manifest.json")
    assert measured not in manifest.read_text()
    finished(*PUBLISH)
    assert measured in manifest.read_text()
    assert finished.versions()[0].tags["parity"].startswith("merged in float32: passed: 4 of 4")
