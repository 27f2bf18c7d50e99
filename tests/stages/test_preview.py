"""Stage ``preview``: a dry run."""

from __future__ import annotations

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
    assert seen.line("steps").startswith("6 over ")
    assert seen.line("trainable").startswith("65,536 parameters")
    assert seen.line("memory").endswith("iB")
    assert seen.line("training time").endswith(" s")


def test_preview_finds_a_bad_rank_pattern_before_any_row_is_made(desk):
    """Adapter targets that the base does not have are refused with code 2 and the names that it has."""
    seen = desk.attempt("stage=preview", "lora.targets=[q_prj]")
    assert seen.code == 2
    assert "q_proj" in seen.err
    assert seen.out == ""
