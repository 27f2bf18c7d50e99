"""The difference between two texts."""

from __future__ import annotations

from hypothesis import given, strategies

from loraloop.feedback.words import MOST, Piece, difference


def test_changed_words_are_told_apart():
    """What differs is removed and added word by word; what both have is shown once."""
    assert difference("The code is 7F-2A.", "The code is 7F-3B, sir.") == [
        Piece("same", "The code is 7F-"),
        Piece("removed", "2A"),
        Piece("added", "3B, sir"),
        Piece("same", "."),
    ]


def test_white_space_between_changed_words_is_changed_with_them():
    """Two texts without a word in common are removed and added whole, whatever spaces they share."""
    assert [each.kind for each in difference("I see no code", "calls the reader now")] == ["removed", "added"]


@given(strategies.text("ab .\n"), strategies.text("ab .\n"))
def test_the_pieces_are_both_texts(old, new):
    """Whatever the texts, the pieces without what was added are the old one, and without what was removed the new."""
    pieces = difference(old, new)
    assert "".join(each.text for each in pieces if each.kind != "added") == old
    assert "".join(each.text for each in pieces if each.kind != "removed") == new


def test_endless_texts_are_not_compared_word_by_word():
    """Where the time would be that of a large product, the differing middle is removed and added whole."""
    many = int(MOST**0.5) + 1
    found = difference("begin " + "a b " * many + "end", "begin " + "b a " * many + "end")
    assert [each.kind for each in found] == ["same", "removed", "added", "same"]
