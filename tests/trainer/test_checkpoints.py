"""Checkpoints that prove themselves."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from loraloop.errors import TrainingError
from loraloop.lora import Lora
from loraloop.trainer import checkpoints
from loraloop.trainer.choices import Choices
from loraloop.trainer.dpo import Dpo
from loraloop.trainer.sft import Sft

INPUTS = {"trainer": {"epochs": 3}, "lora": {"r": 8, "targets": ("q", "v")}, "dataset": "abc"}


@pytest.fixture
def folder(tmp_path):
    """Three sealed checkpoints of steps 9, 10 and 100 below an output folder."""
    for step in (9, 100, 10):
        made = tmp_path / "checkpoints" / f"checkpoint-{step}"
        made.mkdir(parents=True)
        (made / "optimizer.pt").write_bytes(b"state %d" % step)
        (made / "adapter_model.safetensors").write_bytes(b"weights")
        checkpoints.write_manifest(made, INPUTS)
    return tmp_path


@pytest.mark.parametrize("below", ["", "checkpoints", "checkpoints/checkpoint-100"])
def test_the_newest_is_chosen_by_its_step(folder, below):
    """The output folder, its checkpoints and one checkpoint all lead to the newest."""
    assert checkpoints.newest(folder / below, INPUTS).name == "checkpoint-100"


def damage(path, how):
    """Remove, cut, alter a file, or take the manifest away."""
    if how == "missing":
        (path / "optimizer.pt").unlink()
    elif how == "unsealed":
        (path / checkpoints.MANIFEST).unlink()
    elif how == "cut":
        (path / "adapter_model.safetensors").write_bytes(b"weig")
    elif how == "altered":
        (path / "optimizer.pt").write_bytes(b"state 101")
    else:
        (path / checkpoints.MANIFEST).write_bytes(b"{")


@pytest.mark.parametrize("how", ["missing", "unsealed", "cut", "altered", "manifest"])
def test_a_damaged_checkpoint_is_passed_over(folder, how):
    """A checkpoint with a missing, cut or altered file, or without its manifest, is never resumed from."""
    damage(folder / "checkpoints" / "checkpoint-100", how)
    assert checkpoints.newest(folder, INPUTS).name == "checkpoint-10"


def test_without_a_good_checkpoint_every_fault_is_named(folder):
    """When none verifies, the error says of each why."""
    for step, how in ((9, "missing"), (10, "cut"), (100, "unsealed")):
        damage(folder / "checkpoints" / f"checkpoint-{step}", how)
    with pytest.raises(TrainingError) as error:
        checkpoints.newest(folder, INPUTS)
    assert "checkpoint-100: it has no readable manifest" in str(error.value)
    assert "checkpoint-10: adapter_model.safetensors is damaged" in str(error.value)
    assert "checkpoint-9: optimizer.pt is missing" in str(error.value)


def test_other_inputs_are_refused(folder):
    """A run with another rank or data set cannot go on from these checkpoints; the difference is named."""
    with pytest.raises(TrainingError, match=r"dataset was abc, is xyz; lora\.r was 8, is 16"):
        checkpoints.newest(folder, {**INPUTS, "lora": {**INPUTS["lora"], "r": 16}, "dataset": "xyz"})


def test_another_trainer_is_refused_by_its_name(folder):
    """A checkpoint of one method is not resumed by another: both are named, not the settings in which they differ."""
    made = folder / "checkpoints" / "checkpoint-100"
    checkpoints.write_manifest(made, {**INPUTS, "method": "kto"})
    assert checkpoints.newest(folder, {**INPUTS, "method": "kto"}) == made
    with pytest.raises(TrainingError, match=r"is of trainer=kto, and trainer=dpo .*: write trainer=kto; .*") as error:
        checkpoints.newest(folder, {**INPUTS, "method": "dpo", "dataset": "xyz"})
    assert "dataset" not in str(error.value)


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"begin_from": "427e89"}, {"begin_from": "542b3d"}, r"427e89, is the .* 542b3d \(write the version that"),
        ({"begin_from": "427e89"}, {}, r"427e89, is left out \(write the version that .* continued_from names"),
        ({}, {"begin_from": "542b3d"}, r"left out, is the adapter with weights 542b3d \(leave it out"),
    ],
)
def test_another_start_is_refused_by_the_key_that_a_person_writes(folder, then, now, said):
    """A run that began with another adapter, or with none, is refused as ``continue_from``, with what to write."""
    checkpoints.write_manifest(folder / "checkpoints" / "checkpoint-100", {**INPUTS, **then})
    with pytest.raises(TrainingError, match=rf"continue_from was .*{said}"):
        checkpoints.newest(folder, {**INPUTS, **now})


@pytest.mark.parametrize("resume", ["NOPE", "empty", "."])
def test_every_refusal_names_the_other_ways_to_begin(folder, monkeypatch, resume):
    """No folder, no checkpoint and other settings are each told with ``continue_from`` and the way to a new adapter."""
    monkeypatch.chdir(folder)
    Path("empty").mkdir()
    with pytest.raises(TrainingError, match=r"continue_from=models:/NAME@champion, and for a new adapter leave resume"):
        checkpoints.newest(Path(resume), {**INPUTS, "dataset": "xyz"})


EARLIER = {
    "trainer": "epochs batch_size accumulation micro_batch learning_rate warmup schedule weight_decay max_grad_norm "
    "max_length packing bf16 gradient_checkpointing max_steps seed",
    "lora": "r alpha_over_r alpha dropout targets bias use_rslora use_dora rank_pattern alpha_pattern init",
    "choices": "bf16 gradient_checkpointing packing micro_batch accumulation",
}
"""What manifests held before any input was added, by their part."""


@pytest.mark.parametrize("trainer", [Sft, Dpo])
def test_a_checkpoint_of_an_earlier_version_is_resumed(tmp_path, trainer):
    """A key that a manifest does not hold counts as what was done without it; every key of today is such or old."""
    known = {*EARLIER["trainer"].split(), *(["beta"] if trainer is Dpo else [])}
    now = json.loads(json.dumps(trainer().decisive()))
    old = {key: value for key, value in now.items() if key in known}
    assert {f"trainer.{key}" for key in now.keys() - old.keys()} == set(checkpoints.ADDED)
    assert {field.name for field in fields(Lora)} == set(EARLIER["lora"].split())
    assert {field.name for field in fields(Choices)} == set(EARLIER["choices"].split())
    made = tmp_path / "checkpoint-1"
    made.mkdir()
    checkpoints.write_manifest(made, {"trainer": old})
    assert checkpoints.newest(made, {"trainer": now}) == made
    with pytest.raises(TrainingError, match=r"trainer\.loss_on was assistant, is all\. Restore"):
        checkpoints.newest(made, {"trainer": {**now, "loss_on": "all"}})
    with pytest.raises(TrainingError, match=r"trainer\.new was None, is 1\. Restore"):
        checkpoints.newest(made, {"trainer": {**now, "new": 1}})


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    """A folder without checkpoints is an error of its own."""
    with pytest.raises(TrainingError, match="there is none"):
        checkpoints.newest(tmp_path, INPUTS)


def test_a_folder_that_is_not_there_is_said_not_to_be_there(tmp_path):
    """A mistyped ``resume`` is told from a folder without checkpoints, with the folder it was sought from."""
    with pytest.raises(TrainingError, match=r"resume=NOPE does not exist \(seen from /.*\): name the folder of"):
        checkpoints.sound(Path("NOPE"))
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="is a file: name the folder"):
        checkpoints.sound(tmp_path / "file")
