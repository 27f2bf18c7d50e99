"""The frozen general instructions, and what is said of forgetting."""

from dataclasses import replace

import pytest

from loraloop.core.hashing import sha256
from loraloop.errors import DataError
from loraloop.evaluation.evaluation import Evaluation
from loraloop.evaluation.general.instructions import FILE, compare, correct, instructions, rows
from loraloop.records import Generation, Score


def test_the_set_is_frozen():
    """The file is the one that earlier figures were measured on; another set would make them incomparable."""
    assert sha256(FILE).startswith("01d48a1365c18f0b")
    assert [len([each for each in instructions() if each.task == task]) for task in ("facts", "form")] == [8, 8]


def score(losses, right):
    """A score of rows with these losses, of two tokens each; the first half is one kind, the second another."""
    made = [
        Generation("facts" if place < len(losses) / 2 else "sums", str(place), "x", "", kept, loss)
        for place, (loss, kept) in enumerate(zip(losses, right, strict=True))
    ]

    def of(some):
        values = {"loss": sum(each.nll for each in some) / (2 * len(some))}
        return Score(rows=len(some), values=values, generations=tuple(some))

    slices = {task: of([each for each in made if each.task == task]) for task in ("facts", "sums")}
    return replace(of(made), slices=slices)


def test_a_change_is_told_in_nats_a_token_with_a_paired_interval():
    """Rows that all lose one nat over two tokens lose half a nat a token, for certain; kept rules are a share."""
    before = score([2.0, 4.0, 6.0, 8.0], [True, True, True, False])
    after = score([3.0, 5.0, 6.0, 8.0], [False, True, True, False])
    found = compare(before, after)
    assert (found.rows, found.loss.before, found.loss.after) == (4, pytest.approx(2.5), pytest.approx(2.75))
    assert (found.loss.low, found.loss.high) == (pytest.approx(0.0), pytest.approx(0.5))
    facts = found.slices["facts"]
    assert (facts.low, facts.change, facts.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.slices["sums"].change == 0
    assert (found.rules.before, found.rules.after) == (0.75, 0.5)


@pytest.mark.parametrize(("lost", "p"), [(4, 1 / 16), (6, 1 / 64)])
def test_rules_are_lost_by_an_exact_test(lost, p):
    """Of forty rows, four lost rules may be chance and six are not, however narrow the resamples' interval is."""
    losses = [1.0] * 40
    found = compare(score(losses, [True] * 40), score(losses, [at >= lost for at in range(40)]))
    assert found.rules_p == pytest.approx(p)


def test_a_row_without_a_loss_is_no_perfect_one():
    """A reference answer that was not scored gives an error, and counts as no loss of nought."""
    before = score([1.0, 1.0], [True, True])
    after = score([1.0, 1.0], [True, True])
    unscored = replace(after, generations=(replace(after.generations[0], nll=None), *after.generations[1:]))
    with pytest.raises(DataError, match="no loss of its reference answer"):
        compare(before, unscored)


def test_other_rows_are_not_compared():
    """Scores of different instructions give no figure."""
    with pytest.raises(DataError, match="same general instructions"):
        compare(score([1.0, 1.0], [True, True]), score([1.0] * 4, [True] * 4))


def test_a_model_is_asked_as_it_would_be_served(loaded):
    """Every instruction is asked in the data's template, whatever evaluation.max_rows says; without general none is."""
    part = Evaluation(cache=None, max_rows=1, max_new_tokens=1, general=True)
    found = part.score_general(loaded, "{instruction}\n{input}\n> ")
    assert found.rows == 40
    assert found.generations[0].prompt == "Which planet is closest to the Sun?\n> "
    assert replace(part, general=False).score_general(loaded, "{input}") is None


def test_an_answer_is_checked_by_its_own_instruction(tokenizer):
    """The rule of each row is that of the instruction that it was made from."""
    made = rows("{instruction}\n{input}\n> ", tokenizer)
    assert all(correct(row.example, row.completion) for row in made)
    assert not correct(made[0].example, made[5].completion)
