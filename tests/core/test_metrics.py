"""Metrics agree with their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core import paired
from loraloop.core.metrics import (
    METRICS,
    OBJECTIVES,
    Measurement,
    bleu,
    chrf,
    direction,
    exact,
    perplexity,
    rouge_l,
    summarise,
)
from loraloop.records import Example, Message, Provenance, Row, Score, ToolCall

WORDS = st.lists(st.sampled_from("abcd"), max_size=8)


def row(completion: str, task: str = "") -> Row:
    example = Example.one_turn(input="", output=completion, task=task, provenance=Provenance(source="test"))
    return Row("p", completion, example)


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest_common_subsequence(a[1:], b[1:])
    return max(longest_common_subsequence(a[1:], b), longest_common_subsequence(a, b[1:]))


@given(WORDS, WORDS)
@settings(max_examples=60, deadline=None)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(found, truth):
    """ROUGE-L equals 2PR / (P + R) with precision and recall from the textbook recursion."""
    common = longest_common_subsequence(found, truth)
    expected = float(found == truth)
    if common:
        precision, recall = common / len(found), common / len(truth)
        expected = 2 * precision * recall / (precision + recall)
    assert rouge_l(" ".join(found), "\n".join(truth)) == pytest.approx(expected)


def test_lin_2004_example():
    """Lin's own example: "police kill the gunman" shares three of four words in order, "the gunman kill police" two."""
    assert rouge_l("police kill the gunman", "police killed the gunman") == 0.75
    assert rouge_l("the gunman kill police", "police killed the gunman") == 0.5


def test_bleu_and_chrf_of_perfect_short_answers_are_100():
    """One-word answers that are all right reach 100, where plain BLEU would give 0."""
    assert bleu(["17", "yes"], ["17", "yes"]) == pytest.approx(100)
    assert chrf(["17", "yes"], ["17", "yes"]) == pytest.approx(100)
    assert bleu(["8", "no"], ["17", "yes"]) == 0


def test_bleu_is_sacrebleu_on_long_answers():
    """With sentences of four words and more the effective order changes nothing."""
    import sacrebleu

    found, truth = ["the vault is open on monday", "a b c d e"], ["the vault was open on monday", "a b c e d"]
    assert bleu(found, truth) == pytest.approx(sacrebleu.corpus_bleu(found, [truth]).score)


def test_exact_match_ignores_outer_white_space_only():
    """Blanks around an answer are forgiven, inside it they are not."""
    assert exact(" 3 heads\n", "3 heads")
    assert not exact("3  heads", "3 heads")


def test_perplexity_of_a_huge_loss_is_infinite():
    """A loss beyond the range of floats gives infinity instead of an error."""
    assert perplexity(1000.0) == math.inf
    assert perplexity(0.0) == 1
    assert math.isnan(perplexity(math.nan))


def test_a_score_counts_what_was_measured():
    """Loss is weighted by tokens, exact match and accuracy by rows, and slices by their own rows."""
    rows = [row("yes", "a"), row("no", "a"), row("1 2")]
    measured = Measurement((1.0, 5.0, 2.0), (1, 3, 4), (" yes", "yes", "1 3"), (None, None, None))
    score = summarise(rows, measured, lambda example, answer: "1" in answer or answer.strip() == example.output)
    assert score["loss"] == 1.0
    assert (score["exact_match"], score["task_accuracy"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert score.slices["a"]["loss"] == 1.5
    assert score.slices["other"]["rouge_l"] == 0.5
    assert [each.correct for each in score.generations] == [True, False, True]
    assert score.generations[0].answer == " yes"


def test_preference_accuracy_counts_completions_likelier_than_the_rejected():
    """A smaller negative log-likelihood than the rejected answer's is a preference; rows without one do not count."""
    rows = [row("a", "t"), row("b", "t"), row("c", "t")]
    measured = Measurement((1.0, 3.0, 9.0), (1, 1, 1), ("", "", ""), (2.0, 2.5, None))
    assert summarise(rows, measured, lambda *_: False).slices["t"]["preference_accuracy"] == 0.5
    ahead = Measurement((1.0, 3.0, 9.0), (1, 1, 1), ("", "", ""), (2.0, 3.5, None))
    assert summarise(rows, ahead, lambda *_: False).slices["t"]["preference_accuracy"] == 1


def test_rows_without_tokens_have_no_loss():
    """Nothing to predict is not a perfect prediction."""
    score = summarise([row("")], Measurement((0.0,), (0,), ("",), (None,)), lambda *_: True)
    assert math.isnan(score["loss"])
    assert score["exact_match"] == 1


def test_a_rate_has_the_standard_error_of_a_mean():
    """For right and wrong answers it is sqrt(p (1 - p) / (n - 1)), and none where there is one row."""
    rows = [row("a", "t")] * 9 + [row("b", "u")]
    measured = Measurement((1.0,) * 10, (1,) * 10, ("a",) * 7 + ("x",) * 3, (None,) * 10)
    score = summarise(rows, measured, lambda example, answer: answer == example.output)
    assert score.errors["task_accuracy"] == pytest.approx(math.sqrt(0.7 * 0.3 / 9))
    assert score.slices["u"].errors == {}


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 9)), min_size=2, max_size=30))
@settings(deadline=None)
def test_the_losss_error_is_that_of_a_ratio(rows):
    """With equal lengths it is the standard error of a mean over rows; perplexity's is it times the perplexity."""
    nll, tokens = zip(*rows, strict=True)
    equal = tuple(each / count for each, count in rows)
    made = [row("a", "t")] * len(rows)
    blank, none = ("",) * len(rows), (None,) * len(rows)
    score = summarise(made, Measurement(equal, (1,) * len(rows), blank, none), lambda *_: True)
    deviation = math.sqrt(sum((each - score["loss"]) ** 2 for each in equal) / (len(rows) - 1))
    assert score.errors["loss"] == pytest.approx(deviation / math.sqrt(len(rows)), abs=1e-12)
    assert score.errors["perplexity"] == pytest.approx(score.errors["loss"] * score["perplexity"])
    uneven = summarise(made, Measurement(nll, tokens, blank, none), lambda *_: True)
    assert uneven.errors["loss"] >= 0


def test_errors_are_those_of_repeated_draws():
    """The standard errors of all kinds agree within a third with the spread over 50 fresh samples of rows."""
    rng = np.random.default_rng(0)

    def sample() -> Score:
        truth = [" ".join(rng.choice(["heads", "tails", "one", "two"], 6)) for _ in range(40)]
        found = [each if rng.random() < 0.5 else " ".join(rng.permutation(each.split())) for each in truth]
        tokens = tuple(rng.integers(1, 12, 40).tolist())
        nll = tuple(float(count * rng.gamma(2.0, 0.5)) for count in tokens)
        measured = Measurement(nll, tokens, tuple(found), (None,) * 40)
        return summarise([row(each) for each in truth], measured, lambda *_: True)

    scores = [sample() for _ in range(50)]
    for name in ("loss", "bleu", "chrf", "exact_match", "rouge_l"):
        spread = float(np.std([score[name] for score in scores], ddof=1))
        stated = float(np.mean([score.errors[name] for score in scores]))
        assert stated == pytest.approx(spread, rel=1 / 3), name


def test_every_objective_has_a_direction():
    """Losses and what a run takes are minimised, rates and speed maximised."""
    falling = {"loss", "perplexity", "trainable_parameters", "peak_memory_bytes", "seconds"}
    assert {name for name in OBJECTIVES if direction(name) == "minimize"} == falling
    assert {name for name in METRICS if direction(name) == "minimize"} == {"loss", "perplexity"}


TOOL = {"function": {"name": "open", "parameters": {"properties": {"vault": {"type": "integer"}}}}}


def turn(conversation: str, expected: int | None, task: str = "") -> Row:
    """A turn that calls a tool, or says "done" at a conversation's end."""
    call = Message("assistant", (), (ToolCall("open", {"vault": expected}),))
    said = [Message("user", ("go",)), call] + ([] if expected else [Message("assistant", ("done",))])
    example = Example(
        messages=tuple(said), tools=(TOOL,), task=task, origin=conversation, provenance=Provenance(source="test")
    )
    return Row("p", said[-1].text or "call", example)


def said(number: int, name: str = "open") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {{"vault": {number}}}}}</tool_call>'


def measured(*answers: str) -> Measurement:
    count = len(answers)
    return Measurement((1.0,) * count, (2,) * count, answers, (None,) * count)


def test_tool_calls_are_scored_on_the_turns_that_call():
    """Validity, names, arguments and both are shares of the turns that should call, over all and by task."""
    rows = [turn("a", 1, "x"), turn("b", 2, "x"), turn("c", 3, "y"), turn("d", 4, "y"), turn("e", None, "y")]
    answers = measured(said(1), said(9), said(3, "shut"), "no call", said(5))
    score = summarise(rows, answers, lambda *_: False)
    names = ("tool_call_validity", "tool_name_accuracy", "tool_argument_accuracy", "tool_call_accuracy")
    assert [score[name] for name in names] == [0.5, 0.5, 0.5, 0.25]
    assert score.slices["x"]["tool_call_accuracy"] == 0.5
    assert [METRICS["tool_call_accuracy"].row(each) for each in score.generations] == [1, 0, 0, 0, None]
    assert not {*names} & {*summarise([row("a")], measured("a"), lambda *_: True).values}


def test_turns_of_one_conversation_count_as_one_for_the_error():
    """Turns that are right together have the error of their conversations, not of as many rows of their own."""
    marks = [True, False, True, True, False, True]
    alone = summarise([row("x")] * 6, measured(*("x" if each else "y" for each in marks)), lambda e, a: a == "x")
    rows = [each for place in range(6) for each in (turn(f"c{place}", 1), turn(f"c{place}", None))]
    together = summarise(rows, measured(*("x" if each else "y" for each in marks for _ in "ab")), lambda e, a: a == "x")
    assert together.errors["task_accuracy"] == pytest.approx(alone.errors["task_accuracy"])
    assert together.rows == 12
    one = summarise(rows[:2], measured("x", "y"), lambda e, a: a == "x")
    assert not one.errors
    gained = paired.gains("task_accuracy", list(zip(together.generations, reversed(together.generations), strict=True)))
    assert len(gained) == 6
