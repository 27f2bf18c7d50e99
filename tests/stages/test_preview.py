"""Stage ``preview``: a dry run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

SESSIONS = ("source=sessions", f"source.path={Path(__file__).parents[2] / 'examples' / 'sessions'}")
MIXED = ("source=mixed", "source.sources.flips.runs=1", "source.sources.vault.synthetic=6")


@pytest.mark.parametrize("source", [MIXED, SESSIONS])
def test_preview_writes_nothing(desk, tmp_path_factory, monkeypatch, source):
    """stage=preview draws, reads and tokenises, and leaves the folder as empty as it was, whatever it logs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("elsewhere")))
    desk("stage=preview", *source)
    assert list(desk.folder.iterdir()) == []


def test_preview_shows_rows_with_their_loss_mask_and_the_estimate(desk):
    """stage=preview prints three tokenised rows, the part that the loss falls on behind a bar, and the cost."""
    seen = desk("stage=preview", "source.runs=1")
    lines = seen.out.splitlines()
    shown = [index for index, line in enumerate(lines) if line.startswith("count: ")]
    assert len(shown) == 3
    prompt, completion = lines[shown[0] + 1].split(" | ")
    assert completion.startswith(f"{prompt.count('H')} heads, {prompt.count('T')} tails")
    assert lines[shown[0]].endswith("(after the bar)")
    assert seen.line("steps").startswith("100 over ")
    assert seen.line("trainable").startswith("65,536 parameters")
    assert seen.line("memory").endswith("iB")
    assert seen.line("training time").endswith(" s")


def test_preview_finds_a_bad_rank_pattern_before_any_row_is_made(desk):
    """Adapter targets that the base does not have are refused with code 2 and the names that it has."""
    seen = desk.attempt("stage=preview", "lora.targets=[q_prj]")
    assert seen.code == 2
    assert "q_proj" in seen.err
    assert seen.out == ""


def test_preview_shows_what_the_trainer_takes(desk, tmp_path):
    """Rows too long for max_length are counted and named, and the steps and tokens are those of the others."""
    rows = [{"input": f"q{index}", "output": "yes"} for index in range(30)] + [{"input": "long " * 30, "output": "no"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ("source=files", f"source.path={tmp_path}/rows.jsonl", "dataset.validation_share=0.1")
    seen = desk("stage=preview", *data, "trainer.max_length=40")
    assert "left out of the training: 1\n  1 x more tokens than trainer.max_length=40: row 30 ('long long" in seen.out
    kept = desk("stage=preview", *data).line("steps")
    assert int(kept.split()[2].replace(",", "")) - int(seen.line("steps").split()[2].replace(",", "")) > 3 * 150


def test_preview_says_which_rows_are_not_scored(desk, tmp_path):
    """Held-out answers of more tokens than the model has positions are counted, and no preview stops for them."""
    rows = [{"input": f"q{index}", "output": f"yes {index} " * (1 if index % 4 else 600)} for index in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = desk("stage=preview", "source=files", f"source.path={tmp_path}/rows.jsonl", "dataset.validation_share=0.5")
    assert re.search(r"not scored: \d+\n  \d+ x an answer of more tokens than the model's \d+ positions: row", seen.out)


def test_preview_shows_both_answers_of_a_pair(desk, tmp_path):
    """With trainer=dpo the preview shows each pair's two answers, and counts the rows that are no pairs."""
    rows = [{"input": f"q{index}", "output": "yes", "rejected": "no" if index % 3 else None} for index in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = desk("stage=preview", "source=files", f"source.path={tmp_path}/rows.jsonl", "trainer=dpo")
    assert re.search(r"left out of the training: \d+\n  \d+ x no rejected answer: row \d+ \('q\d+'\), ", seen.out)
    assert len(re.findall(r"^row \(rejected\): .*\n.* \| no", seen.out, re.MULTILINE)) == 3
