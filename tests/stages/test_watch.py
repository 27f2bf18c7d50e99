"""``stage=watch`` on the study of a small sweep."""

from __future__ import annotations

import shutil


def test_without_a_terminal_one_table_is_printed(swept):
    """Every trial of the study stands in one table with its state, and the command ends."""
    out = swept("stage=watch", "study=rank_alpha_lr").out
    assert "6 of 6 trials done" in out
    rows = [line.split()[:2] for line in out.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert [int(number) for number, _ in rows] == list(range(len(rows)))
    assert {state for _, state in rows} <= {"complete", "pruned", "failed"}


def test_a_trial_is_cloned_by_its_number(swept, desk):
    """``clone=`` with a change queues the trial's parameters, which the next sweep of the study tries first."""
    (desk.folder / "mlruns").mkdir()
    shutil.copy(swept.folder / "mlruns" / "optuna.db", desk.folder / "mlruns")
    seen = desk("stage=watch", "study=rank_alpha_lr", "clone=0", "change=['lora.r=8']")
    assert "waits with the parameters of trial 0" in seen.out
    assert "waiting" in desk("stage=watch", "study=rank_alpha_lr").out
