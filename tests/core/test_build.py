"""Parts from configuration."""

from __future__ import annotations

from loraloop.core.build import build


def joined(first: str, second: str = "") -> str:
    """What the tests build besides parts."""
    return first + second


HERE = f"{__name__}.joined"


def built(node):
    problems: list[str] = []
    return build(node, "group", (__name__,), problems), problems


def test_what_is_nested_is_built_first():
    """A target within a target's arguments, in a list or a mapping, becomes its argument."""
    node = {"_target_": HERE, "first": {"_target_": HERE, "first": "a", "second": "b"}, "second": "c"}
    assert built(node) == ("abc", [])
    assert built({"list": [node, 1]}) == ({"list": ["abc", 1]}, [])


def test_every_problem_is_found():
    """Problems of several targets are told at once, and nothing is built from them."""
    foreign = {"_target_": "os.system", "command": "true"}
    wrong = {"_target_": HERE, "frist": "a"}
    _, problems = built({"one": foreign, "other": wrong})
    assert problems[0].startswith("group.one._target_=os.system is outside")
    assert problems[1] == ("group.other.frist is not a key of group.other (did you mean first?); it has first, second")


def test_a_value_that_is_not_set_is_named():
    """A part's field without a default is named with where to set it, without what else was given."""
    problems: list[str] = []
    node = {"_target_": "loraloop.source.mixed.Mixed", "weights": {}}
    build(node, "source", ("loraloop.",), problems)
    assert problems == ["source.sources is not set: add source.sources=... or a line sources: to its YAML file"]
