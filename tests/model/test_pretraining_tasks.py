"""What the bundled model is taught, and what it is not."""

from __future__ import annotations

import numpy as np
import pytest

from loraloop.model import pretraining_tasks
from loraloop.source.flips import Flips

COUNTING = ("tally", "how many", "widest", "even", "score")


@pytest.fixture(scope="module")
def rows():
    """What either round draws."""
    rng = np.random.default_rng(5)
    return pretraining_tasks.draw(rng, 2000) + pretraining_tasks.draw(rng, 2000, pretraining_tasks.COUNTING)


@pytest.mark.parametrize("mix", [pretraining_tasks.TASKS, pretraining_tasks.COUNTING])
def test_a_seed_gives_the_same_tasks(mix):
    """The same seed draws the same tasks, another seed others."""
    first, same, other = (pretraining_tasks.draw(np.random.default_rng(seed), 200, mix) for seed in (5, 5, 6))
    assert first == same != other


def test_sequences_of_two_letters_never_use_h_or_t(rows):
    """No task that counts, measures or converts two letters uses H or T: flips are new to the base."""
    sequences = [text for instruction, text, _ in rows if instruction.startswith(COUNTING)]
    assert len(sequences) > 500
    assert not set("HT") & set("".join(sequences))


def test_answers_are_right(rows):
    """Tallies, scores, counts, blocks, sums, lengths and reversals are what their instruction asks for."""
    seen = set()
    side = {letter: place for pair in pretraining_tasks.SIDES for place, letter in enumerate(pair)}
    for instruction, text, answer in rows:
        words = instruction.split()
        if words[0] == "tally":
            assert answer == f"{text.count(words[1])}/{text.count(words[2])}"
        elif instruction == "score":
            sides = [side[letter] for letter in text]
            assert answer == f"{sides.count(0)}-{sides.count(1)}"
        elif instruction.startswith("how many"):
            assert answer == str(text.count(words[2]))
        elif instruction == "widest block":
            blocks = "".join(a + (" " if a != b else "") for a, b in zip(text, text[1:] + "\n", strict=True)).split()
            assert answer == str(max(map(len, blocks)))
        elif instruction == "sum":
            assert answer == str(sum(map(int, text.split("+"))))
        elif instruction == "letters":
            assert answer == str(len(text))
        elif instruction == "backwards":
            assert answer == text[::-1]
        elif instruction == "capitals":
            assert answer == text.upper()
        else:
            continue
        seen.add(" ".join(words[:2]) if words[0] != "tally" else "tally")
    assert len(seen) >= 8


def test_a_letter_is_on_one_side(rows):
    """No two pairs share a letter, so a score never depends on what else is in the text."""
    letters = "".join(pretraining_tasks.SIDES)
    assert len(set(letters)) == len(letters)


def test_no_task_uses_the_wording_of_a_flip_task(rows):
    """No instruction of a flip task is an instruction of a task."""
    flips = Flips(runs=1, per_run=32, tasks=["count", "simulate", "parity", "longest_run", "unlock"])
    asked = {example.instruction for example in flips.collect(None).examples}
    assert len(asked) >= 5
    assert not asked & {instruction for instruction, _, _ in rows}
