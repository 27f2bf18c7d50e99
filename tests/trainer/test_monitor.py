"""What a training shows of itself where there is no terminal."""

from __future__ import annotations

import re
import signal

import pytest

from loraloop.lora import Lora
from loraloop.trainer.dpo import Dpo
from loraloop.trainer.monitor import Monitor
from loraloop.trainer.pack import PackedTrial, train
from loraloop.trainer.sft import Sft

QUICK = {"epochs": 1, "accumulation": 2, "learning_rate": 1e-2, "max_length": 64, "log_steps": 1}


@pytest.fixture
def shown(capsys, monkeypatch):
    """A function that gives the lines of progress, which come at every step."""
    monkeypatch.setattr("loraloop.core.progress.INTERVAL", 0)
    return lambda: [line for line in capsys.readouterr().err.splitlines() if line.startswith("training")]


@pytest.mark.parametrize("method", [Sft, Dpo])
def test_a_training_tells_step_loss_speed_and_time_left(method, kit, tmp_path, shown):
    """Each step of supervised and preference training is told with loss, tokens per second and the time left."""
    data = kit.dataset(16, 0, rejected=method is Dpo)
    method(**QUICK).train(kit.job(kit.loaded(), Lora(r=4), data, kit.Run(), tmp_path))
    lines = shown()
    assert any(
        re.fullmatch(r"training  step 1 of 2, loss \d+\.\d{3}, [\d,]+ tokens/s, \d+ s left", line) for line in lines
    ), lines


def test_a_pack_tells_how_many_train(kit, tmp_path, shown):
    """Each step of a pack is told with its trials, their lowest loss, tokens per second and the time left."""
    trials = [
        PackedTrial(lora=Lora(r=4), settings=Sft(**QUICK, seed=seed), run=kit.Run(), output=tmp_path / str(seed))
        for seed in range(2)
    ]
    train(kit.loaded(), trials, kit.dataset(16, 0))
    assert re.fullmatch(
        r"training 2  step 1 of 2, 2 trials, lowest loss \d+\.\d{3}, [\d,]+ tokens/s, \d+ s left", shown()[0]
    )


def test_a_training_in_the_background_goes_on_ignoring_ctrl_c(kit):
    """Where SIGINT is ignored, as in a shell's background job, it stays ignored; elsewhere the first one is noted."""
    monitor = Monitor(kit.Run(), {})
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with monitor.watching():
            signal.raise_signal(signal.SIGINT)
        assert not monitor.interrupted
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with monitor.watching():
            signal.raise_signal(signal.SIGINT)
        assert monitor.interrupted
    finally:
        signal.signal(signal.SIGINT, before)
