"""Rules of general instructions."""

import json

import pytest

from loraloop.evaluation.general.instructions import instructions
from loraloop.evaluation.general.rules import follows


@pytest.mark.parametrize(
    ("answer", "rules", "kept"),
    [
        ("It is ROME.", {"contains": ["rome"]}, True),
        ("Romeo", {"contains": ["rome"]}, False),
        ("On Mondays.", {"contains": ["monday"]}, True),
        ("The nose", {"contains": ["no"]}, False),
        ("It has 6 sides", {"contains": ["six|6"]}, True),
        ("66", {"contains": ["six|6"]}, False),
        ("Harbour", {"contains_exactly": ["HARBOUR"]}, False),
        ("81 is.", {"starts": "81"}, True),
        ("It is 81.", {"starts": "81"}, False),
        ("two words", {"words": 1}, False),
        ("a\n\nb\nc", {"lines": 3}, True),
        ('{"name": "Ada"}', {"json": {"name": "Ada"}}, True),
        ('Here: {"name": "Ada"}', {"json": {"name": "Ada"}}, False),
        ("apple, melon, pear", {"order": ["apple", "melon", "pear"]}, True),
        ("pear, apple, melon", {"order": ["apple", "melon", "pear"]}, False),
        ("Jon. Tom is the youngest", {"without": ["tom is the youngest"]}, False),
        ("  ", {"without": ["x"]}, False),
    ],
)
def test_a_rule_tells_whether_an_answer_keeps_it(answer, rules, kept):
    """Words count without case and as whole words; a form counts to the letter; an empty answer keeps nothing."""
    assert follows(answer, rules) is kept


@pytest.mark.parametrize("asked", instructions(), ids=lambda asked: asked.instruction[:30])
def test_each_reference_answer_keeps_its_own_rules_and_no_echo_does(asked):
    """The reference answer of each instruction passes, and another instruction's answer does not."""
    assert follows(asked.answer, asked.check)
    others = [each for each in instructions() if each.task != asked.task]
    assert sum(follows(each.answer, asked.check) for each in others) <= 4, json.dumps(asked.check)
