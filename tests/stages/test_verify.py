"""Stages ``publish`` and ``verify`` on an export: it answers as the adapter did, or is refused."""

from __future__ import annotations

import json

import pytest

VERIFY = ("stage=verify", "rows=12")


@pytest.fixture
def merged(finished):
    """The main job's folder with its champion merged into ``out``."""
    finished("stage=publish", "publish=merged", "publish.path=out")
    return finished


def test_a_merged_model_answers_as_its_adapter_did(merged):
    """A merged folder gives the recorded answers in transformers; file, ledger and the version's tag say so."""
    seen = merged(*VERIFY)
    folder = merged.folder / "out/loraloop-v1-merged"
    assert seen.line("agreement").startswith("passed: 12 of 12 greedy answers equal through transformers")
    kept = json.loads((folder / "parity-transformers.json").read_text())
    assert (kept["passed"], kept["agreement"], kept["rows"]) == (True, 1.0, 12)
    assert kept["exact_match"] == kept["exact_match_recorded"] > 0.5
    assert merged.versions()[0].tags["parity"].startswith("passed: 12 of 12")
    merged("stage=publish", "publish=merged", "publish.path=out")  # an equal export stays, its parity file too
    assert (folder / "parity-transformers.json").is_file()


def test_an_altered_export_is_caught(merged):
    """Altered weights are refused by their hash, and where the hash was forged too, by the answers."""
    from safetensors.torch import load_file, save_file

    from loraloop.core.hashing import sha256

    folder = merged.folder / "out/loraloop-v1-merged"
    weights = load_file(folder / "model.safetensors")
    name = next(each for each in weights if "layers.1.self_attn.o_proj" in each)
    save_file(weights | {name: weights[name] * 0}, folder / "model.safetensors", metadata={"format": "pt"})
    seen = merged.attempt(*VERIFY, "path=out")
    assert seen.code == 1
    assert "is not what was exported: model.safetensors altered" in seen.err
    facts = json.loads((folder / "export.json").read_text())
    facts["files"]["model.safetensors"] = sha256(folder / "model.safetensors")
    (folder / "export.json").write_text(json.dumps(facts))
    seen = merged.attempt(*VERIFY, "path=out")
    assert seen.code == 1
    assert "answers differently from its adapter: refused: " in seen.err
    assert "first differing token" in seen.out
    assert json.loads((folder / "parity-transformers.json").read_text())["passed"] is False


def test_nothing_exported_is_told(finished):
    """Without an export, the message says where it was looked for and how one is made."""
    seen = finished.attempt(*VERIFY)
    assert seen.code == 2
    assert "the exports of loraloop version 1 that the ledger knows are: none; publish one" in seen.err
