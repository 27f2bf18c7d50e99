"""Stage ``combine`` on two versions."""

from __future__ import annotations

import json

from loraloop.registry.mlflow import MlflowRegistry

ROWS = ("source.runs=4", "source.tasks=[count,parity]", "evaluation.max_rows=16", "tracker.system_metrics=false")


def number_of(desk, rank):
    return next(int(each.version) for each in desk.versions() if each.tags["rank"] == str(rank))


def test_two_versions_become_one_that_is_measured_beside_them(compared):
    """A combination is measured on the rows of both parts beside base and parts, and is a candidate that names them.

    Versions of several ranks are refused with the command that makes one of them of the other's rank.
    """
    small, large = number_of(compared, 8), number_of(compared, 16)
    command = ("stage=combine", f"adapters=[loraloop@{small},loraloop@{large}]", "tracker.system_metrics=false")
    seen = compared.attempt(*command)
    assert seen.code == 2
    assert f"loraloop/{large} has rank 16" in seen.err
    assert "stage=compress compress=svd compress.rank=RANK" in seen.err
    resize = ("stage=compress", f"adapter=models:/loraloop/{large}", "compress=svd", "compress.rank=8", "margin=0.3")
    cut = compared(*resize, *ROWS).line("registry").split()[2]
    command = ("stage=combine", f"adapters=[loraloop@{small},models:/loraloop/{cut}]", "combine.weights=[0.7,0.3]")
    seen = compared(*command, "rows=6", "tracker.system_metrics=false")
    version = MlflowRegistry(folder=compared.folder / "mlruns").resolve(seen.line("registry").split()[2])
    parts = (f"models:/loraloop/{small} x 0.7", f"models:/loraloop/{cut} x 0.3")
    assert version.manifest.combined_from == parts
    assert version.manifest.rank == 8
    run = compared.artifacts(compared.run_of(seen))
    table = json.loads((run / "combination.json").read_text())
    assert table["columns"] == ["adapter", f"rows of loraloop/{small}", f"rows of loraloop/{cut}", "all rows"]
    assert [row[0] for row in table["data"]] == ["base", f"loraloop/{small}", f"loraloop/{cut}", "combination"]
    assert len((run / "evaluation/adapter/generations.jsonl").read_text().splitlines()) == 12


def test_what_cannot_be_combined_is_told_before_work(compared):
    """One adapter, one twice, and another number of weights are errors that say what to write."""
    wrong = {
        ("adapters=[loraloop@1]",): "two or more are combined: write adapters=[A@1,B@3]",
        ("adapters=[loraloop@1,models:/loraloop/1]",): "names one version twice: loraloop/1, loraloop/1",
        ("adapters=[loraloop@1,loraloop@2]", "combine.weights=[1]"): "are 1 weights for 2 adapters",
    }
    for arguments, words in wrong.items():
        seen = compared.attempt("stage=combine", *arguments)
        assert (seen.code, words in seen.err) == (2, True), seen.err
