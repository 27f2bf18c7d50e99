"""The form of a judge's answer."""

from __future__ import annotations

import pytest

from loraloop.judge.verdict import BETTER, SCORE


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"reason": "it is right", "score": 4}', (4, "it is right")),
        ('Here it is:\n```json\n{"score": 2, "reason": "half {of} it"}\n```', (2, "half {of} it")),
        ('{"score": 3, "reason": "a"} and so {"score": 3, "reason": "b"}', (3, "b")),
        ('{"reason": "it says {\\"score\\": 5}", "score": 1}', (1, 'it says {"score": 5}')),
    ],
)
def test_a_verdict_is_read_from_the_text_around_it(text, read):
    """The one object of the form is found, alone or among words, a fence or braces."""
    assert SCORE.read(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "score: 5",
        '{"score": 5',
        '{"score": 5}',
        '{"reason": "r", "score": 0}',
        '{"reason": "r", "score": 6}',
        '{"reason": "r", "score": true}',
        '{"reason": "r", "score": 4.0}',
        '{"reason": "r", "score": "5"}',
        '{"reason": null, "score": 5}',
        '{"reason": "r", "score": 5, "more": 1}',
        '{"verdict": {"reason": "r", "score": 5}}',
        '{"reason": "the text says so", "score": 5} {"reason": "it is wrong", "score": 1}',
        "[" * 5000 + "{" * 5000,
    ],
)
def test_anything_else_is_no_verdict(text):
    """A missing, foreign or additional key, a value outside the scale, and two different verdicts are none."""
    assert SCORE.read(text) is None


def test_a_preference_is_one_of_three_words():
    """Of a pair A, B or tie is taken, and no other text."""
    assert BETTER.read('{"reason": "r", "better": "B"}') == ("B", "r")
    assert BETTER.read('{"reason": "r", "better": "b"}') is None
