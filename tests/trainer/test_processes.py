"""A training in two processes on CPUs, over gloo, against the same one in one process."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil
import pytest

import warm
from loraloop.errors import ConfigError, LostProcessError, TrainingError
from loraloop.lora import Lora
from loraloop.model.causal import CausalLM
from loraloop.trainer import checkpoints, processes, sharding
from loraloop.trainer.dpo import Dpo
from loraloop.trainer.grpo import Grpo
from loraloop.trainer.kto import Kto
from loraloop.trainer.sft import Sft

MODEL = {"name": "bundled:tiny"}
SHAPE = {"r": 4, "dropout": 0.0}


@pytest.fixture(scope="module")
def forked():
    """Let the processes of a training be forked."""
    with warm.forking(processes):
        yield


def settings(**changes):
    """Quick settings: 26 rows in steps of 8 are four steps, the last of two rows."""
    base = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-2, "max_length": 64, "log_steps": 1, "save_steps": 2}
    return base | changes


def job(kit, run, output, trainer, **more):
    """A job that other processes can build again."""
    config = {
        "model": {"_target_": "loraloop.model.causal.CausalLM", **MODEL},
        "lora": {"_target_": "loraloop.lora.Lora", **SHAPE},
        "trainer": {"_target_": "loraloop.trainer.sft.Sft", **trainer},
    }
    loaded = CausalLM(**MODEL).load()
    return kit.job(loaded, Lora(**SHAPE), kit.dataset(26, 4), run, output, config=config, **more)


def train(kit, output, trainer, **more):
    """Train; the run, and what the trainer returned."""
    run = kit.Run()
    return run, Sft(**trainer).train(job(kit, run, output, trainer, **more))


@pytest.fixture(scope="module")
def both(kit, forked, tmp_path_factory):
    """One process that accumulates four passes a step, and two that accumulate two: run, result and output of each.

    The last two hold a share of the weights each. The two before them import all themselves, as a person's do.
    """
    of_two = settings(accumulation=2, micro_batch=2, processes=2)
    ways = {1: settings(accumulation=4, micro_batch=2), 2: of_two, "sharded": of_two | {"sharding": "fsdp2"}}
    made = {}
    for count, way in ways.items():
        output = tmp_path_factory.mktemp(f"of{count}")
        with pytest.MonkeyPatch.context() as patch:
            if count == 2:
                patch.setattr(processes, "subprocess", subprocess)
            made[count] = (*train(kit, output, way), output)
    return made


@pytest.mark.parametrize("way", [2, "sharded"])
@pytest.mark.parametrize("key", ["train/loss", "train/grad_norm", "train/tokens"])
def test_losses_equal_those_of_one_process(both, key, way):
    """Every step's loss and gradient norm equal those of one process with twice the accumulation, uneven steps too."""
    one, two = (both[each][0].values(key) for each in (1, way))
    assert len(one) == 8
    assert two == pytest.approx(
        one, rel={"train/loss": 0, "train/grad_norm": 1e-4, "train/tokens": 0.02}[key], abs=1e-5
    )


@pytest.mark.parametrize("way", [2, "sharded"])
def test_the_adapter_is_that_of_one_process(both, kit, way):
    """The saved weights equal those of one process, and so do steps and parameters."""
    (_, (_, one), first), (_, (model, two), second) = both[1], both[way]
    assert (two.steps, two.trainable_parameters) == (one.steps, one.trainable_parameters)
    expected = kit.weights(first)
    found = kit.weights(second)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=1e-4)
    assert not model.training


def test_the_rows_are_not_left_beside_the_training(both, kit):
    """The file by which the processes got their rows is gone when they have ended."""
    _, _, output = both[2]
    text = kit.dataset(26, 4).train[0].prompt
    left = [file.name for file in (output / processes.FOLDER).iterdir()]
    assert "launch.log" in left
    assert processes.JOB not in left
    assert not any(text in (output / processes.FOLDER / name).read_text() for name in left)


@pytest.mark.parametrize("count", [1, 2])
def test_a_checkpoint_of_two_resumes_on_one_and_on_two(both, kit, tmp_path, count):
    """From one checkpoint, one process and two go on with the losses of the unbroken run."""
    unbroken, _, output = both[2]
    way = settings(accumulation=4 // count, micro_batch=2, processes=count)
    run, _ = train(kit, tmp_path, way, resume=output / "checkpoints" / "checkpoint-6")
    expected = unbroken.values("train/loss")[6:]
    assert run.values("train/loss") == pytest.approx(expected, abs=1e-5)


def test_a_sharded_checkpoint_resumes(both, kit, tmp_path):
    """From a checkpoint of two that share the weights, two that share them go on with the unbroken run's losses."""
    unbroken, _, output = both["sharded"]
    way = settings(accumulation=2, micro_batch=2, processes=2, sharding="fsdp2")
    run, _ = train(kit, tmp_path, way, resume=output / "checkpoints" / "checkpoint-6")
    assert run.values("train/loss") == pytest.approx(unbroken.values("train/loss")[6:], abs=1e-5)


def test_what_is_not_shared_out_is_refused(kit):
    """One process, a quantised base and an adapter that changes the base are refused by name."""
    with pytest.raises(ValueError, match="sharding=fsdp2 shares weights out over several processes"):
        Sft(sharding="fsdp2")
    asked = Sft(processes=2, sharding="fsdp2")
    with pytest.raises(ConfigError, match=r"model\.quantization=nf4 do not go together"):
        sharding.require(asked, Lora(**SHAPE), kit.base(quantization="nf4"))
    with pytest.raises(ConfigError, match=r"lora\.init=pissa does not"):
        sharding.require(asked, Lora(**SHAPE, init="pissa"), kit.base())


def test_another_number_of_rows_is_refused(both, kit, tmp_path):
    """One process with the accumulation of each of two would take half of a step's rows, and is refused."""
    with pytest.raises(TrainingError, match=r"trainer\.processes was 2, is 1"):
        train(kit, tmp_path, settings(accumulation=2, micro_batch=2), resume=both[2][2])


def members():
    """The processes that train, the first one first: each leads a session, as the one does that started them."""
    launchers = [each for each in psutil.Process().children() if os.getsid(each.pid) == each.pid]
    return [each for one in launchers for each in one.children() if os.getsid(each.pid) == each.pid]


WHOLE = settings(accumulation=2, processes=2, epochs=50)


@pytest.mark.usefixtures("forked")
def test_ctrl_c_ends_all_with_a_checkpoint(kit, tmp_path):
    """After Ctrl+C the step in progress is saved by all, nothing is left running, and the run ends as interrupted."""
    begun = []

    def interrupt(step):
        if step == 1:
            begun.extend(members())
            signal.raise_signal(signal.SIGINT)

    run = kit.Run(interrupt)
    with pytest.raises(KeyboardInterrupt):
        Sft(**WHOLE).train(job(kit, run, tmp_path, WHOLE))
    kept = checkpoints.sound(tmp_path)
    assert kept.name == f"checkpoint-{run.logged[-1][0]}"
    assert {f"rng_state_{rank}.pth" for rank in (0, 1)} <= {path.name for path in kept.iterdir()}
    assert len(begun) == 2
    assert psutil.wait_procs(begun, timeout=5)[1] == []


@pytest.mark.usefixtures("forked")
def test_a_killed_process_ends_all(kit, tmp_path):
    """When one is killed the other ends too, and this error is told, not one of before; the checkpoint is sound."""
    begun = []

    def kill(step):
        if step == 3:
            begun.extend(members())
            begun[-1].kill()

    earlier = tmp_path / processes.FOLDER / "error-1.json"
    earlier.parent.mkdir()
    earlier.write_text('{"known": true, "message": "the loss is nan"}')
    with pytest.raises(LostProcessError, match="a process of 2 was killed or crashed"):
        Sft(**WHOLE).train(job(kit, kit.Run(kill), tmp_path, WHOLE))
    assert checkpoints.sound(tmp_path).name.startswith("checkpoint-")
    assert psutil.wait_procs(begun, timeout=5)[1] == []
    assert not (tmp_path / "adapter").exists()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    """On a machine with one GPU, two processes are refused with both numbers."""
    monkeypatch.setattr(processes, "gpus", lambda: 1)
    with pytest.raises(ConfigError, match=r"trainer\.processes=2 needs as many GPUs, and this machine has 1"):
        Sft(processes=2).check()


@pytest.mark.parametrize("trainer", [Dpo, Kto, Grpo])
def test_trainers_of_one_process_say_so(trainer):
    """A trainer that has not been tried in several processes is refused by name."""
    with pytest.raises(ValueError, match=f"{trainer.__name__} trains in one process"):
        trainer(processes=2)
