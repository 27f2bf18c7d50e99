"""Trials that take the places of those that left a pack."""

import numpy as np
import pytest

from loraloop.errors import ConfigError, PrunedError
from loraloop.lora import Lora
from loraloop.records import Training
from loraloop.trainer.pack import PackedTrial, train

FIRST = ((4, 0), (16, 1), (8, 0))
LATER = ((8, 2), (4, 0), (64, 0), (16, 1))
"""Rank and seed of each; 64 is more than the base's layers have."""


def trial(kit, folder, r, seed, **changes):
    """A trial whose epochs end in a step of fewer rows."""
    fields = {
        "lora": Lora(r=r, dropout=0.1),
        "settings": kit.settings(seed=seed, eval_steps=3, log_steps=2),
        "run": kit.Run(),
        "output": folder,
    }
    return PackedTrial(**fields | changes)


def worse(step, loss):
    """A watch that ends its trial at step 3."""
    raise PrunedError(f"others were better at step {step}")


@pytest.fixture(scope="module")
def data(kit):
    """Rows of four steps an epoch, the last of which has two rows."""
    return kit.dataset(26, 6)


@pytest.fixture(scope="module")
def refilled(kit, data, tmp_path_factory):
    """A pack of three that is refilled until four more have come: all trials, outcomes, and what refill was told."""
    folder, told = tmp_path_factory.mktemp("refilled"), []
    made = [trial(kit, folder / str(n), *each) for n, each in enumerate(FIRST)]
    made[0] = trial(kit, folder / "0", *FIRST[0], on_evaluation=worse)
    waiting = [trial(kit, folder / str(n), *each) for n, each in enumerate(LATER, start=len(FIRST))]

    def refill(ended, free):
        told.append((sorted(ended), free))
        taken, waiting[:] = waiting[:free], waiting[free:]
        made.extend(taken)
        return taken

    return made, train(kit.loaded(), made[:], data, refill), told


def test_a_place_is_refilled_as_soon_as_its_trial_ends(refilled):
    """Pruned, trained or unable to begin: whenever trials end, refill hears of them and of the free places."""
    made, outcomes, told = refilled
    assert told == [([0], 1), ([1, 2], 2), ([5], 1), ([3], 1), ([4, 6], 3)]
    assert [type(outcome) for outcome in outcomes] == [
        PrunedError, Training, Training, Training, Training, ConfigError, Training,
    ]  # fmt: skip
    assert [step for step, values in made[3].run.logged if "eval/loss" in values] == [3, 6, 8]


@pytest.mark.parametrize("position", [1, 3, 4, 6])
def test_a_trial_in_a_refilled_place_is_what_it_would_have_been_alone(kit, data, tmp_path, refilled, position):
    """First or later, among trials at other steps and epochs: what it logs and learns is equal within 1e-5."""
    made, outcomes, _ = refilled
    rank, seed = (*FIRST, *LATER)[position]
    solo = trial(kit, tmp_path, rank, seed)
    _, training = solo.settings.train(kit.job(kit.loaded(), solo.lora, data, solo.run, tmp_path))
    ours, theirs = (
        {key: value for key, value in logged(each.run) if "second" not in key[1]} for each in (made[position], solo)
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    ours, theirs = kit.weights(made[position].output), kit.weights(tmp_path)
    assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) < 1e-5
    assert (outcomes[position].steps, outcomes[position].tokens) == (training.steps, training.tokens)


def logged(run):
    """Every metric by step and name."""
    return [((step, name), value) for step, values in run.logged for name, value in values.items()]
