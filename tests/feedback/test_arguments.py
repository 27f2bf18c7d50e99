"""The arguments of tool calls as fields of a form."""

from __future__ import annotations

import pytest

from loraloop.feedback.arguments import read, readable, shown

SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "minLength": 2},
        "times": {"type": "integer", "minimum": 1},
        "side": {"enum": ["left", "right"]},
        "fast": {"type": "boolean"},
        "box": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["place", "times"],
    "additionalProperties": False,
}


def test_values_survive_the_form():
    """What is shown of a call and sent back unchanged is the call."""
    values = {"place": "B7 \u05e9", "times": 2, "side": "left", "fast": True, "box": [1, 2]}
    found = read(SCHEMA, {each.name: each.value for each in shown(SCHEMA, values)})
    assert (found.values, found.wrong) == (values, False)


OPTIONAL = {"properties": {name: {"type": kind} for name, kind in (("word", "string"), ("size", "number"))}}


@pytest.mark.parametrize(
    "values",
    [{}, {"word": None}, {"word": "null"}, {"word": ""}, {"word": " "}, {"word": "a\r\nb\r"}, {"word": 3},
     {"size": 1.0}, {"size": None}, {"size": "1"}, {"more": None}, {"more": ""}],
)  # fmt: skip
def test_a_field_that_nobody_touched_keeps_its_value(values):
    """Absent, null, blank and of another type: what the form showed and gets back is what the call had, to the type."""
    sent = {each.name: each.value.replace("\r\n", "\n").replace("\r", "\n") for each in shown(OPTIONAL, values)}
    found = read(OPTIONAL, sent, values).values
    assert (found, [type(each) for each in found.values()]) == (values, [type(each) for each in values.values()])


def test_a_field_that_was_touched_is_what_was_written():
    """A null that is cleared is absent, and its word as text, or a blank that gets words, is text."""
    assert read(OPTIONAL, {"word": "", "size": "2"}, {"word": None, "size": 1.0}).values == {"size": 2}
    assert read(OPTIONAL, {"word": "null"}, {}).values == {"word": "null"}
    assert read(OPTIONAL, {"word": "x"}, {"word": ""}).values == {"word": "x"}
    assert read(OPTIONAL, {"word": ""}, {"word": ""}, {"word"}).values == {}, "its box is ticked"
    assert [each.blank for each in shown(OPTIONAL, {"word": ""})] == [True, False]
    assert [each.null for each in shown(OPTIONAL, {"word": None})] == [True, False]


def test_empty_fields_are_left_out():
    """An empty field that is not required is no argument."""
    found = read(SCHEMA, {"place": "B7", "times": "3", "side": "", "fast": "", "box": " "})
    assert (found.values, found.wrong) == ({"place": "B7", "times": 3}, False)


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"times": "many"}, "times", "Write a whole number."),
        ({"times": ""}, "times", "required"),
        ({"times": "nan"}, "times", "Write a whole number."),
        ({"times": "1.5"}, "times", "not of type 'integer'"),
        ({"times": "0"}, "times", "less than the minimum"),
        ({"place": "B"}, "place", "too short"),
        ({"side": '"up"'}, "side", "not one of"),
        ({"box": "[1"}, "box", "not JSON"),
        ({"box": '[1, "x"]'}, "box", "not of type 'integer' (in 1)"),
    ],
)
def test_a_problem_stands_beside_its_field(changed, field, words):
    """A value that is none, or breaks the schema, is a problem of its field, which keeps what was written."""
    given = {"place": "B7", "times": "3"} | changed
    found = {each.name: each for each in read(SCHEMA, given).fields}
    assert [name for name, each in found.items() if each.problem] == [field]
    assert words in found[field].problem
    assert found[field].value == changed[field]


def test_an_argument_that_the_schema_does_not_have():
    """It has a field of its own, so that nothing is lost, and the schema's refusal is that of the whole call."""
    found = read(SCHEMA, {"place": "B7", "times": "3", "other": '"x"'})
    assert found.values["other"] == "x"
    assert "'other' was unexpected" in found.problem


@pytest.mark.parametrize(
    "rule",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "#/$defs/a0"},
        {"$ref": "#"},
        {"type": "nonsense"},
        {"pattern": "(a+)+$"},
        {"type": "object", "patternProperties": {"(a+)+$": {}}, "additionalProperties": False},
    ],
    ids=["elsewhere", "doubling", "itself", "no type", "pattern", "names"],
)
def test_a_schema_of_a_client_neither_leads_elsewhere_nor_takes_forever(rule):
    """References to other addresses, ever more references and patterns without end are not followed."""
    doubling = {f"a{at}": {"allOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(40)}
    schema = {"properties": {"x": rule}, "$defs": {**doubling, "a40": {}}}
    text = "a" * 60 + "!"
    found = read(schema, {"x": f'{{"{text}": 1}}' if "object" in str(rule) else f'"{text}"'})
    assert not found.wrong
    assert list(found.values) == ["x"]


def test_what_is_no_schema_is_told():
    """A schema that cannot be read is known as one, and checks nothing."""
    assert readable(SCHEMA, {})
    assert not readable({"properties": {"x": {"type": "nonsense"}}}, {})
    assert not readable({"type": 3}, {})
    lost = {"properties": {"x": {"$ref": "#/$defs/absent"}}}
    assert readable(lost, {})
    assert not readable(lost, {"x": 1})
