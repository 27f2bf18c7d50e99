"""Stage ``compress`` on a version that a run registered."""

from __future__ import annotations

import json

import pytest

ROWS = ("source.runs=4", "source.tasks=[count,parity]", "evaluation.max_rows=16", "tracker.system_metrics=false")


def version_of(desk, rank):
    """The number of the version with that rank."""
    return next(int(each.version) for each in desk.versions() if each.tags["rank"] == str(rank))


@pytest.fixture
def large(compared):
    """The three runs, with the command that compresses the version of rank 16."""
    return compared, ("stage=compress", f"adapter=models:/loraloop/{version_of(compared, 16)}", "margin=0.3", *ROWS)


def test_the_smallest_form_that_is_not_worse_is_a_candidate(large):
    """Ranks and 8 and 4 bits are measured beside the original; the smallest is registered, with where it comes from.

    Table and picture lie in the job's folder and with the run, and the version's answers are kept for stage=verify.
    """
    from loraloop.registry.mlflow import MlflowRegistry

    desk, command = large
    seen = desk(*command, "compress.ranks=[64,4]")
    table = json.loads(next(desk.folder.glob("mlruns/jobs/*/compression.json")).read_text())
    assert [each["name"] for each in table] == ["original", "rank 4", "int8", "nf4"]
    assert [each["rank"] for each in table] == [16, 4, 16, 16]
    assert all(each["agreement"] > 0.5 for each in table)
    smallest = min(
        (each for each in table if each["p"] is not None and each["p"] <= 0.05), key=lambda each: each["bytes"]
    )
    assert seen.line("proposed").startswith(f"{smallest['name']}: task_accuracy")
    number = int(seen.line("registry").split()[2])
    version = MlflowRegistry(folder=desk.folder / "mlruns").resolve(str(number))
    assert version.manifest.compressed_from == command[1].removeprefix("adapter=")
    assert version.manifest.run_id == desk.run_of(seen).info.run_id
    files = {path.name for path in desk.artifacts(desk.run_of(seen)).rglob("*") if path.is_file()}
    assert {"compression.png", "compression.json", "score.json", "generations.jsonl"} <= files
    assert desk.aliases()["candidate"] == number


def test_a_version_in_four_bits_is_served_and_evaluated(large):
    """A version in NF4 says so in its manifest, and server and stage=evaluate read the same weights from it."""
    import torch

    from loraloop.core import adapter_files
    from loraloop.model.causal import CausalLM
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.serve.engine.adapter_validation import AdapterValidator

    desk, command = large
    number = desk(*command, "compress=nf4").line("registry").split()[2]
    registry = MlflowRegistry(folder=desk.folder / "mlruns")
    version = registry.resolve(number)
    assert version.manifest.storage == "nf4"
    registry.require_servable(version.path, "it")
    adapter = AdapterValidator(CausalLM(name="bundled:tiny").load(), 64).read("it", version)
    path, update = next(iter(adapter.layers.items()))
    plain = adapter_files.tensors(version.path)
    assert torch.equal(update.down.T, plain[f"base_model.model.{path}.lora_A.weight"])
    seen = desk("stage=evaluate", f"adapter=models:/loraloop/{number}", *ROWS)
    assert seen.line("held-out rows").isdigit()


def test_a_version_in_eight_bits_is_published_as_peft_loads_it(large):
    """What publish=peft makes of packed weights answers through plain PEFT as the version did; parity is its own."""
    from loraloop.registry.mlflow import MlflowRegistry

    desk, command = large
    registry = MlflowRegistry(folder=desk.folder / "mlruns")
    original = command[1].rpartition("/")[2]
    desk("stage=publish", f"adapter=models:/loraloop/{original}", "publish=peft", "publish.path=out")
    desk("stage=verify", f"adapter=models:/loraloop/{original}", "rows=4")
    assert registry.resolve(original).manifest.parity
    number = desk(*command, "compress=int8").line("registry").split()[2]
    assert registry.resolve(number).manifest.parity == ()
    desk("stage=publish", f"adapter=models:/loraloop/{number}", "publish=peft", "publish.path=out")
    seen = desk("stage=verify", f"adapter=models:/loraloop/{number}", "rows=12")
    assert seen.line("agreement").startswith("passed: 12 of 12 greedy answers equal through transformers")


def test_what_cannot_be_compressed_is_told_before_work(large):
    """Other rows than the run's, a rank that is no smaller, and a margin outside 0 to 1 are errors; no run is begun."""
    desk, command = large
    before = len(desk.runs())
    wrong = {
        ("seed=5",): "are not those of loraloop version",
        ("compress=svd", "compress.rank=16"): "compress.rank=16 must be below the adapter's largest rank, which is 16",
        (
            "compress.ranks=[16]",
            "compress.storages=[]",
        ): "compress.ranks holds no rank below the adapter's",
        ("margin=0",): "margin=0 must lie between 0 and 1",
    }
    for arguments, words in wrong.items():
        seen = desk.attempt(*command, *arguments)
        assert (seen.code, words in seen.err) == (2, True), seen.err
    assert len(desk.runs()) == before
