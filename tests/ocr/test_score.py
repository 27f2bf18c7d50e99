"""Measures of how well a page was read."""

from hypothesis import given
from hypothesis import strategies as st

from loraloop.ocr.score import character_error, ordered_word_f1, word_f1

texts = st.text("ab \n", max_size=30)


@given(texts)
def test_a_perfect_reading_has_no_error(text):
    """Equal texts have error 0 and F1 1, also when only their white space differs."""
    assert character_error(text, text.replace(" ", "\n ")) == 0.0
    assert word_f1(text, text) == ordered_word_f1(text, text) == 1.0


@given(texts, texts)
def test_order_can_only_cost(truth, read):
    """F1 in order is at most F1 in any order, and both lie in 0..1."""
    assert 0.0 <= ordered_word_f1(truth, read) <= word_f1(truth, read) <= 1.0


def test_known_values():
    """One wrong character of ten is 0.1; words in another order count only without order; nothing read scores 0."""
    assert character_error("abcdefghij", "abcdefghiX") == 0.1
    assert (word_f1("a b c d", "c d a b"), ordered_word_f1("a b c d", "c d a b")) == (1.0, 0.5)
    assert (character_error("abc", ""), word_f1("abc", "")) == (1.0, 0.0)
