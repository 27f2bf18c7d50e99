"""The example sessions that ship: made by their generator, and enough for every specialist."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from loraloop.source.sessions import Sessions

EXAMPLES = Path(__file__).parents[2] / "examples"
SESSIONS = EXAMPLES / "sessions"
CONF = EXAMPLES.parent / "conf"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_generator_makes_exactly_these(tmp_path: Path) -> None:
    """Run again, the generator writes the shipped sessions byte for byte, and no other file."""
    runpy.run_path(str(EXAMPLES / "make_sessions.py"))["write"](tmp_path)
    assert contents(tmp_path) == contents(SESSIONS)


def test_they_show_every_kind_of_session() -> None:
    """There are enough tasks for a fair split, all agents and ratings, and one session each for both ways out."""
    logged = [json.loads(text) for text in contents(SESSIONS).values() if text.endswith(b"}\n")]
    assert 36 <= len(logged) <= 40
    assert len({one["task"] for one in logged}) >= 14
    assert {one["agent"] for one in logged} == {"validator", "actor", "coordinator", "recovery"}
    assert {one["user_rating"] for one in logged} == {1, 2, 3, 4, 5, None}
    quarantined = Sessions(path=SESSIONS).collect().quarantined
    assert [one.reason.split(":")[0] for one in quarantined] == [
        "rated 1, but no person corrected it, no other answer rated 5 or more to the same task, and no rule applies",
        "session.json is not JSON",
    ]


@pytest.mark.parametrize("agent", ["validator", "actor", "coordinator", "recovery"])
def test_every_agent_has_enough_to_learn_from(agent: str) -> None:
    """Each agent alone reaches the five corrective examples that the source asks for."""
    examples = Sessions(path=SESSIONS, agents=[agent]).collect().examples
    assert {one.task for one in examples} == {agent}


def test_plans_make_enough_pairs() -> None:
    """The decomposition plans give at least five pairs over five tasks."""
    pairs = Sessions(path=SESSIONS, pairs=True, agents=["coordinator"]).collect().examples
    assert len(pairs) >= 5
    assert len({one.origin for one in pairs}) == 5
    assert all(one.rejected and one.rejected.text != one.output for one in pairs)


def test_they_are_short_enough_for_the_tiny_model() -> None:
    """Input and output together stay below 200 bytes, a byte being a token of the default model."""
    examples = [*Sessions(path=SESSIONS).collect().examples, *Sessions(path=SESSIONS, pairs=True).collect().examples]
    assert (
        max(
            len((one.input + max(one.output, one.rejected.text if one.rejected else "", key=len)).encode())
            for one in examples
        )
        < 200
    )


@pytest.mark.parametrize(
    ("specialist", "rank", "trainer", "about"),
    [
        ("ocr", 16, "Sft", {"pairing": ["denoise"]}),
        ("action", 8, "Sft", {"agents": ["actor"], "pairs": False}),
        ("decomposition", 16, "Dpo", {"agents": ["coordinator"], "pairs": True, "rejected_below": 3}),
        ("recovery", 12, "Sft", {"agents": ["recovery"], "pairs": False}),
    ],
)
def test_each_specialist_is_one_experiment(specialist: str, rank: int, trainer: str, about: dict[str, object]) -> None:
    """A specialist's overlay chooses its data, rank and trainer, and registers under a name of its own."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"+experiment={specialist}_specialist"])
    assert config.lora.r == rank
    assert config.trainer._target_.endswith(f".{trainer}")
    assert config.registry.name == f"loraloop-{specialist}"
    assert {key: config.source[key] for key in about} == about


def test_with_negatives_every_answer_that_was_rated_low_is_labelled_bad() -> None:
    """Answers of 1 and 2 stars are bad examples, corrections and answers of 4 and 5 stars good ones."""
    settings = {"use": ("corrective", "positive", "negative"), "min_positive_rating": 4, "below": 3, "path": SESSIONS}
    examples = Sessions(**settings).collect().examples
    stars = {
        name.partition("/")[0]: json.loads(text)["user_rating"]
        for name, text in contents(SESSIONS).items()
        if text.endswith(b"}\n")
    }
    bad = [one.provenance.session_id for one in examples if one.label is False]
    good = [one.provenance.session_id for one in examples if one.label]
    assert len(bad) == len(set(bad)) == sum(given in {1, 2} for given in stars.values())
    assert sum(stars[name] in {4, 5} for name in good) == sum(given in {4, 5} for given in stars.values())
    assert {stars[name] for name in set(good) & set(bad)} == {1, 2}
    assert len(good) + len(bad) == len(examples)
