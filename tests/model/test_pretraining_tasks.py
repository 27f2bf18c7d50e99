"""What the bundled model is taught, and what it is not."""

from __future__ import annotations

import numpy as np
import pytest

from loraloop.model import pretraining_tasks
from loraloop.source.flips import Flips

COUNTING = ("tally", "how many", "widest", "even")


@pytest.fixture(scope="module")
def rows():
    return pretraining_tasks.draw(np.random.default_rng(5), 2000)


def test_a_seed_gives_the_same_drills(rows):
    """The same seed draws the same drills, another seed others."""
    assert pretraining_tasks.draw(np.random.default_rng(5), 2000) == rows
    assert pretraining_tasks.draw(np.random.default_rng(6), 2000) != rows


def test_sequences_of_two_letters_never_use_h_or_t(rows):
    """No drill that counts, measures or converts two letters uses H or T: flips are new to the base."""
    sequences = [text for instruction, text, _ in rows if instruction.startswith(COUNTING)]
    assert len(sequences) > 500
    assert not set("HT") & set("".join(sequences))


def test_answers_are_right(rows):
    """Tallies, counts, blocks, sums, lengths and reversals are what their instruction asks for."""
    seen = set()
    for instruction, text, answer in rows:
        words = instruction.split()
        if words[0] == "tally":
            assert answer == f"{text.count(words[1])}/{text.count(words[2])}"
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
    assert len(seen) >= 7


def test_no_drill_uses_the_wording_of_a_flip_task(rows):
    """No instruction of a flip task is an instruction of a drill."""
    flips = Flips(runs=1, per_run=32, tasks=["count", "simulate", "parity", "longest_run", "unlock"])
    asked = {example.instruction for example in flips.collect(None).examples}
    assert len(asked) >= 5
    assert not asked & {instruction for instruction, _, _ in rows}
