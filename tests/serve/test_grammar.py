"""Which grammars answers can be held to."""

from __future__ import annotations

import json
import math

import pytest

from loraloop.errors import GrammarError
from loraloop.records import Grammar
from loraloop.serve import grammar

DEEP: dict = {}
for _ in range(5000):
    DEEP = {"items": DEEP}
PATTERNS = {f"^k{at}[a-z]$": {} for at in range(grammar.MOST_PATTERNS + 1)}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"not": {"type": "string"}}, '"not"'),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, "uniqueItems"),
        ({"type": "strange"}, "strange"),
        ({"$ref": "https://example.com/schema"}, "example.com"),
        ({"$ref": "#/$defs/nothing"}, "nothing"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "string", "format": "nonsense"}, "nonsense"),
        ({"enum": []}, "Unsatisfiable"),
        ({"const": math.nan}, "expected value"),
        ({"const": "\ud800"}, "hex escape"),
        ({"enum": ["x" * grammar.LARGEST]}, f"more than {grammar.LARGEST}"),
        (DEEP, "nested"),
        ({"items": {"patternProperties": PATTERNS}}, f"more than {grammar.MOST_PATTERNS}"),
    ],
    ids=lambda value: value if isinstance(value, str) else "schema",
)
def test_a_schema_that_cannot_be_held_to(schema, says):
    """A schema that no grammar can say, or that is too large or too deep, is refused with the words at fault."""
    for asked, param in ((Grammar(schema=schema), "response_format"), (Grammar(tools=(("look", schema),)), "tools")):
        with pytest.raises(GrammarError) as caught:
            grammar.check(asked)
        assert caught.value.param == param
        assert says in str(caught.value)
    assert "parameters of look" in str(caught.value)


def test_what_can_be_held_to():
    """A free answer, and schemas with definitions, patterns and unknown annotations, are accepted."""
    schema = {
        "title": "A place",
        "$defs": {"id": {"type": "string", "pattern": "^[a-z]{2,4}$"}},
        "type": "object",
        "properties": {"id": {"$ref": "#/$defs/id"}, "at": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
    }
    grammar.check(None)
    grammar.check(Grammar(schema=schema, tools=(("look", schema),)))


def test_the_form_of_vllm():
    """A schema goes to vLLM as it is, calls as tags that begin and end as the engine's, and both as a choice."""
    schema = {"type": "object"}
    assert grammar.for_vllm(Grammar(schema=schema)) == {"json": schema}
    calls = json.loads(grammar.for_vllm(Grammar(tools=(("look", schema),), parallel=False))["structural_tag"])["format"]
    assert calls["stop_after_first"]
    (tag,) = calls["tags"]
    assert (tag["begin"], tag["end"]) == ('<tool_call>{"name": "look", "arguments": ', "}</tool_call>")
    assert tag["content"] == {"type": "json_schema", "json_schema": schema}
    free = Grammar(tools=(("look", schema),), free=True)
    begun = json.loads(grammar.for_vllm(free)["structural_tag"])["format"]
    assert (begun["type"], begun["triggers"], begun["at_least_one"]) == ("triggered_tags", ["<tool_call>"], False)
    either = json.loads(grammar.for_vllm(Grammar(schema=schema, tools=(("look", schema),)))["structural_tag"])["format"]
    assert [each["type"] for each in either["elements"]] == ["json_schema", "tags_with_separator"]
