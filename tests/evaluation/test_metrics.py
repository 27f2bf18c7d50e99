"""Metrics agree with their definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.evaluation.metrics import Measurement, bleu, chrf, exact, perplexity, rouge_l, summarise
from loraloop.records import Example, Provenance, Row

WORDS = st.lists(st.sampled_from("abcd"), max_size=8)


def row(completion: str, task: str = "") -> Row:
    example = Example(input="", output=completion, task=task, provenance=Provenance(source="test"))
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
    assert score.loss == 1.0
    assert (score.exact_match, score.task_accuracy) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
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
    assert math.isnan(score.loss)
    assert score.exact_match == 1
