"""Stage ``evaluate``: a registered adapter on chosen data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loraloop.model import causal

TINY = causal.BUNDLED / "tiny"
CHAMPION = "adapter=models:/loraloop@champion"


def test_the_champion_is_measured_on_other_flips(finished):
    """stage=evaluate shows base beside champion on new flips, and logs both as a run of their own."""
    seen = finished("stage=evaluate", CHAMPION, "source.runs=4", "seed=3")
    base, adapter = map(float, seen.cells("exact_match"))
    assert base <= 0.05 < 0.5 < adapter
    assert "26, of another dataset than it was trained on" in seen.line("held-out rows")
    run = finished.runs()[-1]
    assert (run.info.run_name, run.info.status) == ("evaluate-loraloop-1", "FINISHED")
    assert round(run.data.metrics["final/exact_match"], 4) == adapter
    kept = {path.name for path in finished.artifacts(run).rglob("*") if path.is_file()}
    assert {"score.json", "generations.jsonl", "samples.json", "base_vs_adapter.png"} <= kept


def test_on_its_own_held_out_rows_nothing_is_doubted(finished):
    """With the data that the adapter was trained on, the held-out part is the same and no warning is printed."""
    seen = finished("stage=evaluate", CHAMPION, "evaluation.max_rows=16")
    assert seen.line("held-out rows") == "640"
    assert float(seen.cells("exact_match")[1]) > 0.5


def test_a_published_folder_is_evaluated_like_a_version(finished):
    """adapter= also takes the path of a folder with an adapter and its manifest."""
    finished("stage=publish", "publish.path=out")
    seen = finished("stage=evaluate", "adapter=out/loraloop-v1", "source.runs=2")
    assert float(seen.cells("exact_match")[1]) > 0.5


@pytest.fixture
def other_base(tmp_path: Path) -> Path:
    """A model of the same shape and tokenizer with other weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path / "other"
    shutil.copytree(TINY, folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY)).save_pretrained(folder)
    return folder


def test_an_adapter_of_another_base_is_refused(finished, other_base):
    """An adapter is not attached to a base with other weights: code 1, both bases named, nothing logged."""
    seen = finished.attempt("stage=evaluate", CHAMPION, f"model.name={other_base}")
    assert seen.code == 1
    assert "loraloop: the adapter was trained on " in seen.err
    assert "bundled:tiny" in seen.err
    assert str(other_base) in seen.err
    assert len(finished.runs()) == 1


def test_an_unknown_version_is_answered_with_those_there_are(finished):
    """A version that does not exist is refused with the aliases and versions that do."""
    seen = finished.attempt("stage=evaluate", "adapter=models:/loraloop/7")
    assert seen.code == 1
    assert "aliases: candidate -> 1, champion -> 1; versions: 1" in seen.err
