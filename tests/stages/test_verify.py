"""Stages ``publish`` and ``verify`` on an export: it answers as the adapter did, or is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from loraloop.evaluation import store

VERIFY = ("stage=verify", "rows=12")
MERGED = ("stage=publish", "publish=merged", "publish.path=out", "publish.rows=12")


@pytest.fixture
def merged(finished):
    """The main job's folder with its champion merged into ``out``."""
    finished(*MERGED)
    return finished


def test_a_merged_model_answers_as_its_adapter_did(merged):
    """A merged folder gives the recorded answers in transformers; file, card, manifest, tag and run say so."""
    folder = merged.folder / "out/loraloop-v1-merged"
    assert json.loads((folder / "parity-transformers.json").read_text())["passed"]  # publishing measured it
    assert "12 of 12 (0.98 asked)" in (folder / "README.md").read_text()
    seen = merged(*VERIFY)
    assert seen.line("agreement").startswith("passed: 12 of 12 greedy answers equal through transformers")
    kept = json.loads((folder / "parity-transformers.json").read_text())
    assert (kept["passed"], kept["agreement"], kept["rows"]) == (True, 1.0, 12)
    assert kept["scores"]["exact_match"]["value"] == kept["scores"]["exact_match"]["recorded"] > 0.5
    assert kept["logits"]["shared"] == 20
    assert merged.versions()[0].tags["parity"].startswith("merged in float32: passed: 12 of 12")
    (kept,) = merged.folder.glob("mlruns/artifacts/adapters/loraloop/*/manifest.json")
    manifest = json.loads(kept.read_text())
    assert [each["agreement"] for each in manifest["parity"]] == [1.0]
    merged(*MERGED)  # an equal export stays, its parity file too
    assert (folder / "parity-transformers.json").is_file()
    merged("stage=publish", "publish=folder", "publish.form=merged", "publish.path=copy")
    copied = merged.folder / "copy/loraloop-v1-merged"
    assert {path.name for path in copied.iterdir()} == {path.name for path in folder.iterdir()}


def test_an_altered_export_is_caught(merged):
    """Altered weights are refused by their hash, and where that was forged too, by the ledger; nothing is noted."""
    from safetensors.torch import load_file, save_file

    from loraloop.core.hashing import sha256

    folder = merged.folder / "out/loraloop-v1-merged"
    weights = load_file(folder / "model.safetensors")
    name = next(each for each in weights if "layers.1.self_attn.o_proj" in each)
    save_file(weights | {name: weights[name] * 0}, folder / "model.safetensors", metadata={"format": "pt"})
    seen = merged.attempt(*VERIFY, "path=out")
    assert seen.code == 1
    assert "is not what was exported: model.safetensors altered; remove the folder and publish again" in seen.err
    facts = json.loads((folder / "export.json").read_text())
    facts["files"]["model.safetensors"] = sha256(folder / "model.safetensors")
    (folder / "export.json").write_text(json.dumps(facts))
    seen = merged.attempt(*VERIFY, "path=out")
    assert seen.code == 1
    assert "its files and their hashes in export.json were written anew, and the ledger knows others" in seen.err
    assert merged.attempt(*MERGED).code == 1
    assert json.loads((folder / "parity-transformers.json").read_text())["passed"] is True
    folder = shutil.copytree(folder, merged.folder / "copy/loraloop-v1-merged")
    seen = merged.attempt(*VERIFY, "path=copy")  # a place that the ledger does not know: the answers decide
    assert seen.code == 1
    assert "answers differently from its adapter: refused: " in seen.err
    assert "first differing token" in seen.out
    assert json.loads((folder / "parity-transformers.json").read_text())["passed"] is False
    assert merged.versions()[0].tags["parity"].startswith("merged in float32: passed: 12 of 12")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("rows=0", "rows=0 must be a whole number from 1"),
        ("rows=many", "rows=many must be a whole number from 1"),
        ("min_agreement=.nan", "min_agreement=.nan must be a share from 0 to 1"),
        ("min_agreement=5", "min_agreement=5 must be a share from 0 to 1"),
        ("min_agreement=nan", "min_agreement=nan must be a share from 0 to 1"),
    ],
)
def test_what_asks_for_nothing_is_refused(merged, asked, told):
    """Neither no rows nor a share that is none is taken, and nothing is noted of it."""
    seen = merged.attempt("stage=verify", asked)
    assert seen.code == 2
    assert told in seen.err


def test_fewer_rows_take_the_place_of_more_nowhere(merged):
    """A comparison of four rows is shown, and the one of twelve stays in file, manifest and tag."""
    assert merged("stage=verify", "rows=4").line("agreement").startswith("passed: 4 of 4")
    folder = merged.folder / "out/loraloop-v1-merged"
    assert json.loads((folder / "parity-transformers.json").read_text())["rows"] == 12
    assert merged.versions()[0].tags["parity"].startswith("merged in float32: passed: 12 of 12")


def test_an_export_that_was_not_measured_itself_goes_no_further(merged):
    """A measurement of another export of the same form and type does not count: the folder holds its own.

    Nor does publishing it again pass for a measurement.
    """
    (merged.folder / "out/loraloop-v1-merged/parity-transformers.json").unlink()
    further = ("stage=publish", "publish=folder", "publish.form=merged", "publish.path=copy")
    seen = merged.attempt(*further)
    assert seen.code == 1
    assert "it was never measured; measure it with stage=verify path=" in seen.err
    seen = merged.attempt(*MERGED)
    assert seen.code == 1
    assert "holds this export, which was never measured: measure it with stage=verify" in seen.err
    merged(*VERIFY)
    merged(*further)


def test_an_export_that_answers_differently_is_not_published(finished, monkeypatch):
    """Below the share that is asked for, the first differing tokens are shown, and nothing is at publish.path."""
    read = store.read

    def longer(folder):
        """What was recorded, each answer with a full stop more."""
        score = read(folder)
        return replace(score, generations=tuple(replace(each, answer=f"{each.answer}.") for each in score.generations))

    monkeypatch.setattr(store, "read", longer)
    seen = finished.attempt(*MERGED)
    assert seen.code == 1
    assert "refused: 0 of 12 greedy answers equal" in seen.err
    assert "it was not published" in seen.err
    assert seen.out.count("'(end)'") == 5
    assert list((finished.folder / "out").iterdir()) == []
    assert "parity" not in finished.versions()[0].tags


def test_a_folder_of_peft_is_verified_too(finished):
    """publish=peft is a folder that plain PEFT loads on the base, and it gives the recorded answers."""
    finished("stage=publish", "publish=peft", "publish.path=out")
    assert finished(*VERIFY).line("agreement").startswith("passed: 12 of 12 greedy answers equal through transformers")


def test_nothing_exported_is_told(finished):
    """Without an export, the message says where it was looked for and how one is made."""
    seen = finished.attempt(*VERIFY)
    assert seen.code == 2
    assert "the exports of loraloop version 1 that the ledger knows are: none; publish one" in seen.err


@pytest.mark.parametrize(
    ("publish", "told"),
    [
        (("publish=gguf", "publish.merge=true"), "llama.cpp cannot run the chat template"),
        (("publish=merged",), "renders no conversation: "),
    ],
)
def test_an_export_that_cannot_be_compared_must_run_all_the_same(office, tmp_path, publish, told):
    """An adapter without recorded answers is published unmeasured, but not with a template that its runtime refuses."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from loraloop.model.causal import BUNDLED

    base, theirs = tmp_path / "odd", tmp_path / "theirs"
    shutil.copytree(BUNDLED / "tiny", base)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(theirs)
    (base / "chat_template.jinja").write_text("{{ messages | unheard_of }}")
    named = ("registry.name=odd", "tracker=none")
    office("stage=register", f"adapter={theirs}", f"model.name={base}", "dataset.template=chat", *named)
    target = ("publish.min_agreement=0", f"publish.path={tmp_path / 'out'}")
    seen = office.attempt("stage=publish", *publish, *target, "adapter=models:/odd@candidate", *named)
    assert seen.code == 1
    assert told in seen.err
    assert not list((tmp_path / "out").glob("*"))
