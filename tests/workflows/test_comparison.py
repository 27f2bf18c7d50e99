"""Comparing an export's answers with the recorded ones."""

from dataclasses import replace

import pytest

from loraloop.records import Generation, Probe, RuntimeAnswer
from loraloop.workflows import comparison


def recorded(answer, expected="6 heads", calls=None):
    return Generation("count", "HT", expected, answer, answer == expected, calls=calls)


def answered(*tokens, ended=True):
    return RuntimeAnswer(text="".join(tokens), tokens=tokens, ended=ended)


@pytest.mark.parametrize(
    ("tokens", "place", "export", "goes_on"),
    [(("6", " tails"), 1, " tails", " heads"), (("7",), 0, "7", "6 heads"), (("6",), 1, "(end)", " heads")],
)
def test_the_first_differing_token_is_found(tokens, place, export, goes_on):
    """The token where an answer leaves the recorded text is named with its place; so is an end that comes too early."""
    found = comparison.first_difference(recorded("6 heads"), answered(*tokens))
    assert (found.token, found.export, found.recorded) == (place, export, goes_on)


def test_an_answer_that_was_cut_agrees_with_its_longer_form():
    """An answer without its end token counts as equal where one text begins with the other, and else not."""
    assert comparison.equal("6 heads, 1", answered("6", " heads", ended=False))
    assert not comparison.equal("6 heads, 1", answered("6", " heads"))
    assert not comparison.equal("6 heads", answered("6", " tails", ended=False))


def test_agreement_is_the_share_of_equal_answers():
    """Two of three equal answers are an agreement of 2/3, and the third one's token is told."""
    known = [recorded("6 heads"), recorded("5 heads"), recorded("4 heads")]
    answers = [answered("6", " heads"), answered("5", " tails"), answered("4", " heads")]
    shown, agreement = comparison.differences(known, answers)
    assert agreement == pytest.approx(2 / 3)
    assert [each.export for each in shown] == [" tails"]


def test_a_prompt_is_told_without_what_all_prompts_end_with():
    """Of prompts that a chat template renders, the shown part is the one that tells them apart."""
    known = [replace(recorded("6 heads"), prompt=f"{question}<|im_end|>answer:") for question in ("six?", "seven?")]
    shown, _ = comparison.differences(known, [answered("no")] * 2)
    assert [each.prompt for each in shown] == ["six", "seven"]


def test_scores_of_export_and_adapter_are_of_the_same_rows():
    """Exact match and tool calls are told for both sides with their standard errors; calls where some are expected."""
    call = '<tool_call>{"name": "open", "arguments": {"code": "1"}}</tool_call>'
    known = [recorded("6 heads"), recorded("5 heads"), recorded(call, expected=call, calls={"right": True})]
    found = comparison.scores(known, ["6 heads", "6 heads", "no"])
    assert (found["exact_match"].value, found["exact_match"].recorded) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found["exact_match"].error == pytest.approx(1 / 3)
    assert (found["tool_call_accuracy"].value, found["tool_call_accuracy"].recorded) == (0.0, 1.0)
    assert found["tool_call_accuracy"].error is None


def test_logarithms_of_probabilities_are_logits_but_for_a_constant():
    """A constant between both sides is no difference; one logit that moves against the others is."""
    probe = Probe(prompt="?", tokens=(1, 2, 3), logits=(5.0, 4.0, 3.0))
    assert comparison.logits(probe, {1: -0.5, 2: -1.5, 3: -2.5}).difference == pytest.approx(0)
    found = comparison.logits(probe, {1: -0.5, 2: -1.2, 9: -2.5})
    assert (found.shared, found.tokens) == (2, 3)
    assert found.difference == pytest.approx(0.15)


@pytest.mark.parametrize("found", [{8: -0.5, 9: -2.5}, {1: float("nan"), 2: -1.5}])
def test_a_difference_that_cannot_be_told_is_no_number(found):
    """Where no likely token is shared, or a logit is not finite, the difference is none: JSON has no infinity."""
    made = comparison.logits(Probe(prompt="?", tokens=(1, 2, 3), logits=(5.0, 4.0, 3.0)), found)
    assert (made.difference, made.off) == (None, "not known")
