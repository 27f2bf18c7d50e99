"""What a cycle learns by, given what the ratings hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loraloop.feedback.settings import Feedback
from loraloop.records import Rating, Session
from loraloop.source.flips import Flips
from loraloop.trainer.dpo import Dpo
from loraloop.trainer.grpo import Grpo
from loraloop.trainer.kto import Kto
from loraloop.trainer.sft import Sft
from loraloop.workflows.retraining import recipes
from loraloop.workflows.retraining.training_set import ShortageError, TrainingSetBuilder

ROLE: Any = SimpleNamespace(role="tickets", owns=lambda answered: answered == "support@1")
CORRECTIONS = [(f"ticket {number}", "?", 1, f"queue {number}") for number in range(3)]
STARS = [(f"ticket {number}", f"queue {number % 2}", 5 if number < 3 else 1, "") for number in range(6)]
PAIRS = [(f"ticket {number}", said, stars, "") for number in range(3) for said, stars in (("right", 4), ("wrong", 2))]


@pytest.fixture
def taught(tmp_path: Path):
    """A function that rates answers and gives what a recipe makes of them, or why it makes nothing."""
    stores = []

    def build(rated: list[tuple[str, str, int, str]], learn: str):
        store = Feedback(folder=tmp_path / str(len(stores)), review="none").open()
        stores.append(store)
        for number, (prompt, answer, stars, correction) in enumerate(rated):
            name = f"s{number}"
            store.keep(Session(id=name, prompt=prompt, answer=answer, answered="support@1", status="ok"))
            store.rate(name, Rating(stars=stars, correction=correction))
        for each in store.proposals():
            store.decide(each.id, "accepted")
        unused: Any = None
        policy: Any = SimpleNamespace(golden=None, below=4, min_corrective=3, learn=learn)
        builder = TrainingSetBuilder(policy, tmp_path, store, Flips(), unused, unused, 0)
        return builder._corrective(ROLE)

    yield build
    for store in stores:
        store.close()


def test_corrections_are_learned_by_supervised_training(taught):
    """policy.learn=auto and sft_continue take corrections."""
    for learn in ("auto", "sft_continue"):
        assert [each.output for each in taught(CORRECTIONS, learn)] == ["queue 0", "queue 1", "queue 2"]


@pytest.mark.parametrize(
    ("learn", "corrections", "misfit", "recipe", "words"),
    [
        ("auto", recipes.ENOUGH - 1, None, "sft", "below 500 auto makes one"),
        ("auto", recipes.ENOUGH, None, "sft_continue", "from 500 on auto goes on with it"),
        ("auto", recipes.ENOUGH, "lora.r=8", "sft", "cannot go on: lora.r=8"),
        ("sft", recipes.ENOUGH, None, "sft", "policy.learn=sft"),
        ("sft_continue", 1, None, "sft_continue", "policy.learn=sft_continue"),
        ("kto", recipes.ENOUGH, None, "kto", "policy.learn=kto"),
    ],
)
def test_the_number_of_corrections_decides_what_auto_does(learn, corrections, misfit, recipe, words):
    """From 500 corrections on auto goes on with a champion that fits; who asks for a recipe gets it; each says why."""
    policy: Any = SimpleNamespace(learn=learn)
    found, why = recipes.settle(policy, corrections, lambda: misfit)
    assert found == recipe
    assert why.endswith(words)
    assert (recipes.MEASURED in why) is (learn == "auto")


def test_corrections_go_on_at_a_lower_rate():
    """The champion goes on with a fifth of the learning rate; a new adapter, and another trainer, have the whole."""
    trainer = Sft(learning_rate=5e-3)
    assert recipes.trainer("sft_continue", trainer) == Sft(learning_rate=1e-3)
    assert recipes.trainer("sft", trainer) is trainer
    stars = Kto(learning_rate=3e-5)
    assert recipes.trainer("kto", stars) is stars


def test_stars_alone_are_learned_from_where_that_is_asked_for(taught):
    """Without corrections auto waits, and says how many examples KTO would have; policy.learn=kto takes them."""
    with pytest.raises(ShortageError) as raised:
        taught(STARS, "auto")
    assert str(raised.value).endswith(
        "; policy.learn=kto trainer=kto would learn from 6 examples; policy.learn=auto does not do so: corrections "
        "taught most for each rating, and stars or pairs alone nothing certain (docs/loop.md)"
    )
    assert [each.label for each in taught(STARS, "kto")] == [True] * 3 + [False] * 3


def test_a_refusal_counts_a_session_that_was_bad_and_corrected_once(taught):
    """Two badly rated answers with corrections are two sessions, though policy.learn=kto makes four examples."""
    with pytest.raises(ShortageError, match=r"^2 sessions of tickets have an answer that is labelled good or bad"):
        taught(CORRECTIONS[:2], "kto")


def test_pairs_are_learned_from_where_that_is_asked_for(taught):
    """A good and a bad answer to one task are a pair for policy.learn=dpo."""
    found = taught(PAIRS, "dpo")
    assert [(each.output, each.rejected.text) for each in found] == [("right", "wrong")] * 3


@pytest.mark.parametrize(
    ("rated", "learn", "missing"),
    [
        (STARS[:3], "kto", "3 more bad ones needed"),
        (STARS[1:], "kto", "1 more good ones needed"),
        (STARS, "dpo", "3 more needed"),
        (STARS, "sft", "3 more needed"),
    ],
)
def test_ratings_that_a_recipe_cannot_learn_from_are_counted(taught, rated, learn, missing):
    """A recipe that is asked for says what it lacks and proposes no other one."""
    with pytest.raises(ShortageError) as raised:
        taught(rated, learn)
    assert missing in str(raised.value)
    assert "would learn from" not in str(raised.value)


@pytest.mark.parametrize(
    ("learn", "trainer", "fits"),
    [
        ("auto", Sft(), True),
        ("auto", Grpo(), True),
        ("sft_continue", Sft(), True),
        ("sft_continue", Kto(), False),
        ("kto", Kto(), True),
        ("kto", Sft(), False),
        ("kto", Grpo(), False),
        ("auto", Dpo(), False),
    ],
)
def test_recipe_and_trainer_fit_each_other(learn, trainer, fits):
    """A trainer that does not take what the recipe makes is one problem, which says what to write."""
    policy: Any = SimpleNamespace(learn=learn)
    found = recipes.misfits(policy, trainer)
    assert (found == []) is fits
    assert all("write trainer=" in each for each in found)
