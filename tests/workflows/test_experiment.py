"""Stage ``experiment``, the main job: what a person sees of it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import warm
from loraloop.errors import LostProcessError
from loraloop.evaluation import store
from loraloop.records import Job, Manifest, Version
from loraloop.tracker.mlflow import Mlflow
from loraloop.trainer import checkpoints
from loraloop.workflows.experiment import _interruptible
from waiting import PATIENCE, until

TINY = Path(checkpoints.__file__).parents[1] / "model" / "assets" / "tiny"
SMALL = ("source.runs=4", "trainer.max_steps=4", "tracker.system_metrics=false")
"""128 flips of which 26 are held out, enough for a verdict; four steps."""


def test_the_default_job_learns_what_its_base_cannot_do(main_job):
    """`loraloop` without arguments takes exact match on held-out flips from at most 5% to at least 95%.

    It is wide of what rounding moves: benchmarks/main_job.py has the range over seeds, threads and processors.
    """
    seen = main_job.seen[""]
    base, adapter = map(float, seen.cells("exact_match"))
    metrics = main_job.run().data.metrics
    assert (metrics["base/exact_match"], metrics["final/exact_match"]) == pytest.approx((base, adapter), abs=1e-3)
    assert base <= 0.05
    assert adapter >= 0.95


def test_the_summary_says_what_the_run_took_and_where_to_look(main_job):
    """The summary names trainable parameters and share, speed, memory, version, gate, the run and the UI's command."""
    seen, run = main_job.seen[""], main_job.run()
    assert "640 held-out rows" in seen.out
    assert seen.out.count("65,536 parameters, 6.89% of 951,808") == 2  # as estimated, and as trained
    assert re.fullmatch(r"[\d,]+ tokens/s over 480 steps in .+", seen.line("speed"))
    assert re.fullmatch(r"[\d.]+ [MG]iB", seen.line("peak memory"))
    assert seen.line("registry") == "loraloop version 1 (candidate, champion)"
    assert re.match(r"passed: task_accuracy 0\.9\d+ beats base 0, ", seen.line("gate"))
    assert seen.line("run").endswith(f"/runs/{run.info.run_id}")
    assert seen.line("open the UI").endswith(
        f"mlflow ui --workers 1 --backend-store-uri sqlite:///{main_job.folder}/mlruns/mlflow.db"
    )


def test_the_run_is_kept_whole(main_job):
    """The run is FINISHED and keeps parameters, adapter, answers, data, plots, dataset inputs and verdict."""
    run = main_job.run()
    assert run.info.status == "FINISHED"
    params = {name: run.data.params[name] for name in ("lora.r", "lora.alpha", "trainer.learning_rate", "seed")}
    assert params == {"lora.r": "16", "lora.alpha": "32.0", "trainer.learning_rate": "0.005", "seed": "0"}
    assert {"train/loss", "eval/loss", "final/loss", "base/loss", "final/rouge_l", "final/chrf", "cost/seconds",
            "cost/tokens_per_second", "estimate/seconds", "estimate/memory_bytes"} <= {*run.data.metrics}  # fmt: skip
    assert run.data.tags["gate"] == "passed"
    assert run.data.tags["registry.version"] == "loraloop/1"
    kept = {str(p.relative_to(main_job.artifacts(run))) for p in main_job.artifacts(run).rglob("*") if p.is_file()}
    assert {
        "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/manifest.json",
        "evaluation/samples.json", "evaluation/adapter/generations.jsonl", "evaluation/base/score.json",
        "dataset/dataset.jsonl", "plots/loss.png", "plots/base_vs_adapter.png",
    } <= kept  # fmt: skip
    contexts = {tag.value for each in run.inputs.dataset_inputs for tag in each.tags}
    assert contexts == {"training", "validation"}


def test_version_one_is_candidate_and_champion_with_its_manifest(main_job):
    """Version 1 has both aliases, and its manifest names base, rank, data and run as the run logged them."""
    run, (version,) = main_job.run(), main_job.versions()
    assert main_job.aliases() == {"candidate": 1, "champion": 1}
    manifest = Manifest.from_dict(json.loads((Path(version.source) / "manifest.json").read_text()))
    (data,) = {each.dataset.source for each in run.inputs.dataset_inputs}
    assert version.run_id == manifest.run_id == run.info.run_id
    assert (manifest.base.name, manifest.rank, manifest.alpha) == ("bundled:tiny", 16, 32.0)
    assert manifest.dataset_fingerprint == json.loads(data)["fingerprint"]


def test_the_registered_adapter_answers_as_logged_with_peft_alone(main_job):
    """Base and adapter loaded with transformers and PeftModel.from_pretrained give the answers that the run logged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = main_job.versions()[0].source
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(TINY), folder).eval()
    logged = store.read(main_job.artifacts(main_job.run()) / "evaluation" / "adapter").generations[:12]
    for each in logged:
        inputs = tokenizer(each.prompt, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=32)[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == each.answer.strip()
    assert any(each.correct for each in logged)


def test_three_ranks_are_three_runs_that_differ_in_rank_alone(three_runs):
    """`-m lora=r8,r16,r64` makes three finished runs with the same keys that differ in lora.r and lora.alpha alone."""
    runs = three_runs.runs()
    assert [(run.data.params["lora.r"], run.data.params["lora.alpha"]) for run in runs] == [
        ("8", "16.0"), ("16", "32.0"), ("64", "128.0"),
    ]  # fmt: skip
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({frozenset(run.data.params) for run in runs}) == 1
    assert len({frozenset(run.data.metrics) for run in runs}) == 1
    first, *others = ({**run.data.params} for run in runs)
    differing = {key for other in others for key in first if first[key] != other[key]}
    assert differing == {"lora.r", "lora.alpha"}


def test_an_adapter_that_learned_nothing_is_kept_but_not_promoted(office):
    """With a learning rate of 1e-9 the version stays candidate, and summary, tag and ledger say why."""
    seen = office(*SMALL, "trainer.learning_rate=1e-9", "registry.name=idle")
    assert seen.line("registry") == "idle version 1 (candidate)"
    verdict, reason = seen.line("gate").split(": ", 1)
    assert (verdict, reason) == ("refused", "task_accuracy 0 does not beat base 0, no gain where 0.02 is asked for")
    assert office.aliases("idle") == {"candidate": 1}
    assert office.run_of(seen).data.tags["gate.reason"] == reason
    ledger = [json.loads(line) for line in (office.folder / "mlruns/idle.ledger.jsonl").read_text().splitlines()]
    assert [(entry["event"], entry["reason"]) for entry in ledger][-1] == ("gate", reason)


def test_a_worse_adapter_does_not_dethrone_the_champion(finished):
    """A later run is measured against the champion on its own held-out rows, and refused when it is worse."""
    seen = finished(*SMALL)
    assert seen.line("registry") == "loraloop version 2 (candidate)"
    assert re.search(r"refused: task_accuracy 0.* does not beat champion 0\.\d+", seen.line("gate"))
    assert finished.aliases() == {"candidate": 2, "champion": 1}


def test_the_champion_is_measured_on_the_untouched_base(finished):
    """With an init that moves the base, the champion has the loss that it has otherwise, and a worse one is refused."""
    champions = []
    for init in ("default", "pissa"):
        seen = finished(*SMALL, f"lora.init={init}", "gate.metric=loss", "evaluation.cache=null")
        assert seen.line("gate").startswith("refused")
        ledger = (finished.folder / "mlruns/loraloop.ledger.jsonl").read_text().splitlines()
        champions.append(json.loads(ledger[-1])["numbers"]["champion"])
    assert champions[0] == champions[1] < 0.2
    assert finished.aliases()["champion"] == 1


def test_equal_weights_are_one_version(office):
    """The same command twice trains the same weights: two runs, one version."""
    first, second = (office(*SMALL, "registry.name=twice") for _ in range(2))
    assert first.line("registry") == "twice version 1 (candidate)"
    assert second.line("registry") == "twice version 1 (candidate), registered before"
    assert office.run_of(first).info.run_id != office.run_of(second).info.run_id
    assert len(office.versions("twice")) == 1


def test_other_choices_are_what_is_trained(office):
    """`lora=r64 trainer.learning_rate=1e-3 seed=7` is what the run logs and the adapter's own config says."""
    run = office.run_of(office("lora=r64", "trainer.learning_rate=1e-3", "seed=7", *SMALL))
    params = {
        name: run.data.params[name] for name in ("lora.r", "trainer.learning_rate", "trainer.seed", "source.seed")
    }
    assert params == {"lora.r": "64", "trainer.learning_rate": "0.001", "trainer.seed": "7", "source.seed": "7"}
    config = json.loads((office.artifacts(run) / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (64, 128)


def test_without_a_tracker_the_version_is_registered_all_the_same(desk):
    """tracker=none logs no run, and still registers the adapter and asks the gate."""
    seen = desk(*SMALL[:2], "tracker=none")
    assert seen.line("registry") == "loraloop version 1 (candidate)"
    assert not any(line.startswith("  run ") for line in seen.out.splitlines())
    assert desk.client.get_experiment_by_name("loraloop") is None or desk.runs() == []


@pytest.mark.parametrize("model", ["tiny", "tiny_nf4"])
def test_an_adapter_of_random_weights_is_never_registered(office, model):
    """model.weights=random trains, in NF4 too, and is logged, but leaves no version."""
    seen = office(*SMALL, f"model={model}", "model.weights=random", "registry.name=chance")
    assert seen.line("registry") == "not registered"
    assert office.run_of(seen).info.status == "FINISHED"
    assert office.versions("chance") == []


@pytest.mark.fault(
    "NaN loss",
    "train",
    "the run is FAILED, nothing is registered",
    "the loss is nan at step N: training stopped. Lower trainer.learning_rate (now 1) or set trainer.max_grad_norm",
)
def test_a_loss_that_is_not_finite_fails_the_run_and_registers_nothing(office):
    """A run whose loss becomes NaN ends with code 1, the step and a way out; it is FAILED and left no version."""
    changes = ("trainer.learning_rate=1", "trainer.max_grad_norm=0", "lora.alpha=1e30", "registry.name=broken")
    seen = office.attempt(*SMALL, *changes)
    assert seen.code == 1
    assert re.match(r"loraloop: the loss is (nan|inf) at step \d", seen.err.splitlines()[-1])
    assert "Lower trainer.learning_rate" in seen.err
    run = office.runs()[-1]
    assert run.info.status == "FAILED"
    assert run.data.tags["error"].startswith("TrainingError: the loss is")
    assert office.versions("broken") == []
    assert not (office.artifacts(run) / "adapter").exists()


@pytest.mark.fault("two registrations at once", "register", "one database, two versions")
def test_two_runs_at_once_on_an_empty_folder_both_succeed(desk):
    """Two processes that start together make one database, two finished runs and two versions."""
    started = [desk.start(*SMALL, f"seed={seed}") for seed in (1, 2)]
    ended = [(process.communicate(timeout=PATIENCE), process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0], ended
    assert [run.info.status for run in desk.runs()] == ["FINISHED", "FINISHED"]
    assert len(desk.versions()) == 2


@pytest.fixture
def interrupted(desk):
    """A job of 48 steps that was sent SIGINT when its progress bar showed a step: it waits for that in its third."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", WAITS_FOR_SIGINT, *INTERRUPTED]
    process = warm.spawn(command, cwd=desk.folder, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while not re.search(rb"\b[1-9]\d*/48\b", shown) and (part := _more(ours)):
        shown += part
    process.send_signal(signal.SIGINT)
    while part := _more(ours):
        shown += part
    out, _ = process.communicate(timeout=PATIENCE)
    os.close(ours)
    return process.returncode, out, shown.decode(errors="replace")


def _more(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # what Linux says when nobody holds the other end any more
        return b""


WAITS_FOR_SIGINT = """
import time
from loraloop.__main__ import main
from loraloop.trainer.monitor import Monitor

def step(monitor, state, control, plain=Monitor.step):
    while state.global_step == 3 and not monitor.interrupted:
        time.sleep(0.01)
    plain(monitor, state, control)

Monitor.step = step
main()
"""
"""`loraloop`, but that its third step takes until SIGINT has arrived: a machine's speed decides nothing."""
INTERRUPTED = ("source.runs=10", "trainer.epochs=3", "evaluation.max_rows=24", "tracker.system_metrics=false")


def test_ctrl_c_marks_the_run_killed_and_keeps_what_it_takes_to_go_on(desk, interrupted):
    """After Ctrl+C the run is KILLED, and the printed command ends with the weights of an uninterrupted run."""
    code, out, shown = interrupted
    assert code == 130, shown
    assert "Traceback" not in out + shown
    assert desk.run().info.status == "KILLED"
    assert desk.client.search_registered_models() == []
    (checkpoint,) = desk.folder.glob("mlruns/jobs/*/checkpoints/checkpoint-*")
    assert checkpoints.verify(checkpoint) is None
    assert 0 < int(checkpoint.name.removeprefix("checkpoint-")) < 48
    (folder, again) = re.findall("To go on: cd (.*) && loraloop (.*)", out)[0]
    assert shlex.split(folder) == [str(desk.folder)]
    assert again.count("resume=") == 1
    resumed = desk(*shlex.split(again))
    assert "over 48 steps" in resumed.line("speed")
    assert resumed.line("registry").startswith("loraloop version 1 ")
    assert desk(*INTERRUPTED).line("registry").endswith(", registered before")
    assert [run.info.status for run in desk.runs()] == ["KILLED", "FINISHED", "FINISHED"]


@pytest.mark.parametrize("folder", ["NOPE", "."])
def test_a_resume_that_finds_no_checkpoint_is_refused_before_anything_is_made(desk, folder):
    """``resume`` of no folder, or of one without a checkpoint, is refused before rows are made; no run is left."""
    seen = desk.attempt(*SMALL, f"resume={folder}")
    assert (seen.code, seen.out) == (1, "")
    assert seen.err.startswith(f"loraloop: resume={folder} ")
    assert "continue_from=models:/NAME@champion" in seen.err
    assert not (desk.folder / "mlruns" / "mlflow.db").exists()


def test_a_checkpoint_that_was_not_completed_is_not_said_to_be_kept(tmp_path):
    """What an interrupt cut short is no checkpoint: nothing was kept then; one that verifies is named."""
    job = Job(stage="experiment", seed=0, config={}, output=tmp_path, choices={}, overrides=("lora=r8", "resume=/old"))
    half = tmp_path / "checkpoints" / "checkpoint-3"
    half.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), contextlib.redirect_stdout(io.StringIO()) as out, _interruptible(job):
        raise KeyboardInterrupt
    assert out.getvalue().startswith("interrupted before the first checkpoint: nothing was kept")
    checkpoints.write_manifest(half, {})
    with pytest.raises(KeyboardInterrupt), contextlib.redirect_stdout(io.StringIO()) as out, _interruptible(job):
        raise KeyboardInterrupt
    assert out.getvalue().startswith("interrupted; checkpoint-3 was kept. To go on: cd ")
    assert out.getvalue().count("resume=") == 1


@pytest.mark.parametrize(("number", "named"), [(3, "models:/vaults/3"), (0, "@champion")])
def test_an_interrupted_continuation_goes_on_with_its_version(tmp_path, number, named):
    """The printed command names the version that an alias meant, because the alias may move; a folder stays."""
    job = Job(
        stage="experiment", seed=0, config={}, output=tmp_path, choices={}, overrides=("continue_from=@champion",)
    )
    kept = tmp_path / "checkpoints" / "checkpoint-3"
    kept.mkdir(parents=True)
    checkpoints.write_manifest(kept, {})
    begun = Version(name="vaults", number=number, aliases=(), path=tmp_path, manifest=None)
    for ended in (KeyboardInterrupt, LostProcessError):
        with pytest.raises(ended), contextlib.redirect_stdout(io.StringIO()) as out, _interruptible(job, begun):
            raise ended
        assert re.findall(r"continue_from=(\S+)", out.getvalue()) == [named]


def test_a_lost_process_prints_how_to_go_on(tmp_path):
    """When a process of several is lost, the command that goes on from the newest checkpoint is printed."""
    job = Job(stage="experiment", seed=0, config={}, output=tmp_path, choices={}, overrides=("lora=r8",))
    kept = tmp_path / "checkpoints" / "checkpoint-3"
    kept.mkdir(parents=True)
    checkpoints.write_manifest(kept, {})
    with pytest.raises(LostProcessError), contextlib.redirect_stdout(io.StringIO()) as out, _interruptible(job):
        raise LostProcessError("a process of 2 was killed")
    assert out.getvalue().startswith("interrupted; checkpoint-3 was kept. To go on: cd ")


THIRD_STEP = "mlruns/third-step"


def waiting_in_its_third_step(desk):
    """A job that is in its third step, and ends it when it has been asked to end."""
    script = WAITS_FOR_SIGINT.replace("time.sleep", f"open({THIRD_STEP!r}, 'w').close() or time.sleep")
    process = warm.spawn([sys.executable, "-c", script, *SMALL], cwd=desk.folder, stdout=subprocess.PIPE)
    mark = desk.folder / THIRD_STEP
    until(lambda: mark.exists() or process.poll() is not None, "the third step has begun")
    mark.unlink()
    return process


@pytest.mark.fault(
    "SIGTERM",
    "train",
    "the step in progress is a checkpoint, the run is KILLED, exit code 143",
    "interrupted; checkpoint-3 was kept. To go on: cd ... && loraloop ... resume=...",
)
def test_a_job_that_is_ended_from_outside_does_not_stay_running(desk):
    """SIGTERM keeps a checkpoint, ends the run KILLED and exits with 143; after SIGKILL the next start ends the run."""
    process = waiting_in_its_third_step(desk)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, out
    assert re.search("checkpoint-3 was kept. To go on: cd .* && loraloop ", out)
    (checkpoint,) = desk.folder.glob("mlruns/jobs/*/checkpoints/checkpoint-3")
    assert checkpoints.verify(checkpoint) is None
    assert desk.run().info.status == "KILLED"
    killed = waiting_in_its_third_step(desk)
    assert [run.info.status for run in desk.runs()] == ["KILLED", "RUNNING"]
    killed.kill()
    killed.communicate()
    with Mlflow(folder=f"{desk.folder}/mlruns", system_metrics=False).start("next"):
        pass
    assert [run.info.status for run in desk.runs()] == ["KILLED", "KILLED", "FINISHED"]
    assert "died" in desk.runs()[1].data.tags["error"]


LEAVES_IN_ITS_THIRD_STEP = """
import pathlib
import time
from loraloop.__main__ import main
from loraloop.trainer.monitor import Monitor

def step(monitor, state, control, plain=Monitor.step):
    while state.global_step == 3 and not pathlib.Path("gone").exists():
        time.sleep(0.01)
    plain(monitor, state, control)

Monitor.step = step
main()
"""
"""`loraloop`, but that its third step takes until the reader has gone."""


@pytest.mark.fault(
    "standard output closed (`| head`)",
    "train",
    "the step in progress is a checkpoint, the run is KILLED, exit code 141",
    "WARNING: the reader of standard output has gone, as after `| head`, and the run ends: interrupted; ...",
)
def test_a_run_whose_reader_leaves_is_killed_with_a_checkpoint(desk):
    """After `| head -3` the run is KILLED with a checkpoint, the log says why, and no traceback is shown.

    Which step that is depends on whether Python holds output back (PYTHONUNBUFFERED).
    """
    command = [sys.executable, "-c", LEAVES_IN_ITS_THIRD_STEP, *SMALL]
    process = warm.spawn(command, cwd=desk.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert [process.stdout.readline().split()[0] for _ in range(3)] == ["data", "rows", "tasks"]
    process.stdout.close()
    (desk.folder / "gone").touch()
    said = process.stderr.read()
    assert process.wait(PATIENCE) == 141, said
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert desk.run().info.status == "KILLED"
    (checkpoint,) = desk.folder.glob("mlruns/jobs/*/checkpoints/checkpoint-*")
    assert checkpoints.verify(checkpoint) is None
    (log,) = desk.folder.glob("mlruns/jobs/*/loraloop.log")
    assert "the reader of standard output has gone" in log.read_text()
    assert f"{checkpoint.name} was kept. To go on: cd " in log.read_text()
