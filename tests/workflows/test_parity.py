"""Comparing an export's answers with the recorded ones."""

import pytest

from loraloop.records import Generation, RuntimeAnswer
from loraloop.workflows import parity


def recorded(answer, expected="6 heads"):
    return Generation("count", "HT", expected, answer, answer == expected)


def answered(*tokens, ended=True):
    return RuntimeAnswer(text="".join(tokens), tokens=tokens, ended=ended)


@pytest.mark.parametrize(
    ("tokens", "place", "export", "goes_on"),
    [(("6", " tails"), 1, " tails", " heads"), (("7",), 0, "7", "6 heads"), (("6",), 1, "(end)", " heads")],
)
def test_the_first_differing_token_is_found(tokens, place, export, goes_on):
    """The token where an answer leaves the recorded text is named with its place; so is an end that comes too early."""
    found = parity.first_difference(recorded("6 heads"), answered(*tokens))
    assert (found.token, found.export, found.recorded) == (place, export, goes_on)


def test_an_answer_that_was_cut_agrees_with_its_longer_form():
    """An answer without its end token counts as equal where one text begins with the other, and else not."""
    assert parity._equal("6 heads, 1", answered("6", " heads", ended=False))
    assert not parity._equal("6 heads, 1", answered("6", " heads"))
    assert not parity._equal("6 heads", answered("6", " tails", ended=False))


def test_agreement_is_the_share_of_equal_answers():
    """Two of three equal answers are an agreement of 2/3, refused where 0.98 is asked and passed where 0.6 is."""
    import dataclasses

    known = [recorded("6 heads"), recorded("5 heads"), recorded("4 heads")]
    made = parity._compare(known, [answered("6", " heads"), answered("5", " tails"), answered("4", " heads")])
    assert made.agreement == pytest.approx(2 / 3)
    assert (made.exact_match, made.exact_match_recorded) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert [each.export for each in made.differences] == [" tails"]
    assert not dataclasses.replace(made, min_agreement=0.98).passed
    assert dataclasses.replace(made, min_agreement=0.6).passed
