"""Members that leave a pack, and those that stay."""

import numpy as np
import pytest

from loraloop.errors import ConfigError, PrunedError, TrainingError
from loraloop.lora import Lora
from loraloop.trainer.pack import PackedTrial, train

RANKS = (4, 8, 4, 16)


def members(kit, folder, changes=None, **settings):
    """Members of several ranks and seeds; ``changes`` are fields of a member by its position."""
    changes = changes or {}
    made = []
    for index, r in enumerate(RANKS):
        fields = {
            "lora": Lora(r=r, dropout=0.1),
            "settings": kit.settings(seed=index % 2, **settings),
            "run": kit.Run(),
            "output": folder / str(index),
        }
        made.append(PackedTrial(**fields | changes.get(index, {})))
    return made


def prune_at(step, seen):
    """A watch that ends its member's training at a step."""

    def on_evaluation(now, loss):
        seen.append((now, loss))
        if now >= step:
            raise PrunedError(f"others were better at step {now}")

    return on_evaluation


@pytest.fixture(scope="module")
def data(kit):
    """Rows of three steps an epoch."""
    return kit.dataset(24, 6)


@pytest.fixture(scope="module")
def whole(kit, data, tmp_path_factory):
    """A pack that nobody leaves: its members and its results."""
    made = members(kit, tmp_path_factory.mktemp("whole"))
    return made, train(kit.loaded(), made, data)


def stay_the_same(kit, whole, made, positions):
    """Assert that the members at ``positions`` learned what they learned in the pack that nobody left."""
    for position in positions:
        ours, theirs = (kit.weights(each[position].output) for each in (made, whole[0]))
        assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) < 1e-5
        ours, theirs = (each[position].run.values("train/loss") for each in (made, whole[0]))
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_watch_sees_every_validation(kit, data, tmp_path):
    """A watch is told every step and loss that its own run is told."""
    seen = {index: [] for index in range(len(RANKS))}
    made = members(
        kit, tmp_path, {index: {"on_evaluation": prune_at(100, seen[index])} for index in seen}, eval_steps=2
    )
    results = train(kit.loaded(), made, data)
    assert not any(isinstance(result, Exception) for result in results)
    for index, member in enumerate(made):
        assert [step for step, _ in seen[index]] == [2, 4, 6]
        assert [loss for _, loss in seen[index]] == member.run.values("eval/loss")


@pytest.mark.parametrize("pruned", [(0,), (1,), (0, 2, 3)])
def test_a_pruned_member_leaves_and_the_others_do_not_notice(kit, whole, data, tmp_path, pruned):
    """Whether its rank stays in the pack or goes with it, a pruned member's place is closed; nothing of it is kept."""
    made = members(kit, tmp_path, {index: {"on_evaluation": prune_at(3, [])} for index in pruned})
    results = train(kit.loaded(), made, data)
    for index in pruned:
        assert isinstance(results[index], PrunedError)
        assert str(results[index]) == "others were better at step 3"
        assert made[index].run.logged[-1][0] == 3
        assert not (made[index].output / "adapter").exists()
    stay_the_same(kit, whole, made, set(range(len(RANKS))) - set(pruned))


def test_a_pack_that_all_have_left_ends(kit, data, tmp_path):
    """When the last member is pruned the pack is over."""
    made = members(kit, tmp_path, {index: {"on_evaluation": prune_at(3, [])} for index in range(len(RANKS))})
    results = train(kit.loaded(), made, data)
    assert all(isinstance(result, PrunedError) for result in results)
    assert {member.run.logged[-1][0] for member in made} == {3}


def test_a_loss_that_is_not_finite_ends_one_member(kit, whole, data, tmp_path):
    """A member whose scaling overflows gets the solo trainer's error; its neighbours in the same passes learn on."""
    made = members(kit, tmp_path, {2: {"lora": Lora(r=4, dropout=0.1, alpha=1e40)}})
    results = train(kit.loaded(), made, data)
    assert isinstance(results[2], TrainingError)
    assert str(results[2]).startswith("the loss is nan at step 1: training stopped. Lower trainer.learning_rate")
    assert not made[2].run.values("train/loss")
    assert not (made[2].output / "adapter").exists()
    stay_the_same(kit, whole, made, {0, 1, 3})


def test_weights_that_are_not_finite_are_never_kept(kit, tmp_path):
    """A last step that ruins the weights is noticed although no later loss tells."""
    ruin = {"lora": Lora(r=8, dropout=0.1, alpha_over_r=1e38)}
    made = members(kit, tmp_path, {1: ruin}, max_steps=1, max_grad_norm=0.0)
    results = train(kit.loaded(), made, kit.dataset(24, 0))
    assert isinstance(results[1], TrainingError)
    assert "no adapter was kept" in str(results[1])
    assert [(member.output / "adapter").exists() for member in made] == [True, False, True, True]


def test_a_member_that_does_not_fit_never_begins(kit, whole, data, tmp_path):
    """A rank above the layers', or a folder in use, is that member's own error."""
    used = tmp_path / "used"
    (used / "adapter").mkdir(parents=True)
    made = members(kit, tmp_path, {1: {"lora": Lora(r=64, dropout=0.1)}, 3: {"output": used}})
    results = train(kit.loaded(), made, data)
    assert isinstance(results[1], ConfigError)
    assert "lora.r=64" in str(results[1])
    assert isinstance(results[3], TrainingError)
    assert "finished adapter" in str(results[3])
    stay_the_same(kit, whole, made, {0, 2})


def test_an_error_of_a_watch_is_its_members_own(kit, whole, data, tmp_path):
    """A study that cannot be reached ends the member that asked it, with the error as it was."""

    def broken(step, loss):
        raise RuntimeError("no database")

    made = members(kit, tmp_path, {0: {"on_evaluation": broken}})
    results = train(kit.loaded(), made, data)
    assert isinstance(results[0], RuntimeError)
    stay_the_same(kit, whole, made, {1, 2, 3})


def test_max_steps_never_lengthens_a_pack(kit, tmp_path):
    """A max_steps beyond the epochs gives a pack the steps of a run without it, as it does alone."""
    trainings = [
        train(
            kit.loaded(), [PackedTrial(settings=settings, lora=Lora(r=4), run=kit.Run(), output=tmp_path / name)], data
        )[0]
        for name, settings in (
            ("plain", kit.settings(eval_steps=100)),
            ("capped", kit.settings(eval_steps=100, max_steps=100)),
        )
        for data in [kit.dataset()]
    ]
    assert trainings[0].steps == trainings[1].steps == 6
