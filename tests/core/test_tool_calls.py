"""Tool calls in answers: reading them, and comparing them as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core import prompts
from loraloop.core.tool_calls import judge, problem, read
from loraloop.records import Message, ToolCall


def tool(name: str, required: list[str] | None = None, **properties):
    rules = {argument: {"type": rule} if isinstance(rule, str) else rule for argument, rule in properties.items()}
    needed = list(properties) if required is None else required
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": rules, "required": needed}},
    }


TOOLS = (
    tool("open", vault="string", code="integer"),
    tool("weigh", ["what"], what="string", grams="number", exact={"type": "boolean", "default": False}),
    tool("list", ["folders"], folders={"type": "array", "items": {"type": "number"}}, order={"enum": ["up", "down"]}),
)
NAMES = st.text(st.characters(exclude_categories=("Cs", "Z", "C")), min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
CALLS = st.lists(st.builds(ToolCall, NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=3)


def tagged(*calls: ToolCall, gap: str = "") -> str:
    written = (json.dumps({"name": call.name, "arguments": dict(call.arguments)}) for call in calls)
    return "\n".join(f"<tool_call>{gap}{each}{gap}</tool_call>" for each in written)


@given(CALLS, st.sampled_from(["", " ", "\n", "\n\n  "]))
@settings(max_examples=60, deadline=None)
def test_every_written_form_is_read_back(calls, gap):
    """Calls in tags with any white space, as OpenAI's JSON, as a list and as tool_calls are the same calls."""
    plain = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    openai = [
        {"type": "function", "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))}}
        for call in calls
    ]
    expected = [(call.name.strip(), dict(call.arguments)) for call in calls]
    forms = [tagged(*calls, gap=gap), json.dumps(plain), json.dumps(openai), gap + json.dumps({"tool_calls": openai})]
    for form in forms:
        assert [(call.name, call.arguments) for call in read(form)] == expected


@pytest.mark.parametrize("template", ["chatml", "llama2", "plain"])
def test_what_a_built_in_template_writes_is_read(template):
    """Calls that a built-in chat template renders are read back from its text."""
    from loraloop.model.tokenizer import byte_tokenizer

    calls = (ToolCall("open", {"vault": 'a"</b>', "code": 12}), ToolCall("weigh", {"what": "x"}))
    said = prompts.chat(template, byte_tokenizer(), [Message("assistant", (), calls)], ask=False)
    assert [(call.name, call.arguments) for call in read(said)] == [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("answer", ["", "Vault 4 is open.", '{"heads": 3}', "[1, 2]", "[]", "{no json", '["name"]'])
def test_other_answers_hold_no_call(answer):
    """Plain text and JSON that names no call are answers without calls."""
    assert read(answer) == ()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("<tool_call>{", "not closed"),
        ("<tool_call>{</tool_call>", "not JSON"),
        ("<tool_call>[]</tool_call>", "no name"),
        ('<tool_call>{"name": "", "arguments": {}}</tool_call>', "no name"),
        ('<tool_call>{"name": "open", "arguments": [1]}</tool_call>', "not an object"),
        ('<tool_call>{"name": "open", "arguments": "{"}</tool_call>', "not JSON"),
    ],
)
def test_a_broken_call_says_why(answer, reason):
    """What begins as a call and is none is refused with the reason, and counts as no valid call."""
    with pytest.raises(ValueError, match=reason):
        read(answer)
    assert judge(answer, [ToolCall("open")], TOOLS) == judge("", [ToolCall("open")], TOOLS)


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_answer_breaks_the_judgement(text):
    """Whatever a model says is judged, and without a call nothing of it is right."""
    for answer in (text, f"<tool_call>{text}</tool_call>", f'{{"name": "open", "arguments": {json.dumps(text)}}}'):
        assert not judge(answer, [ToolCall("open", {"vault": "a", "code": 1})], TOOLS).right


@given(CALLS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_order_does_not_matter(calls, random):
    """The same calls in another order, their keys in another order, are right."""
    mixed = [
        ToolCall(call.name, dict(random.sample(list(call.arguments.items()), len(call.arguments)))) for call in calls
    ]
    random.shuffle(mixed)
    judged = judge(tagged(*mixed), calls, ())
    assert judged.right
    assert judged.names
    assert judged.arguments


@pytest.mark.parametrize(
    ("given", "expected", "right"),
    [
        ({"vault": "a", "code": "12"}, {"vault": "a", "code": 12}, True),
        ({"vault": " a ", "code": 12.0}, {"vault": "a", "code": 12}, True),
        ({"vault": "a", "code": "twelve"}, {"vault": "a", "code": 12}, False),
        ({"vault": "A", "code": 12}, {"vault": "a", "code": 12}, False),
        ({"vault": 1, "code": 12}, {"vault": "1", "code": 12}, False),
        ({"vault": "a", "code": True}, {"vault": "a", "code": 1}, False),
        ({"vault": "a"}, {"vault": "a", "code": 12}, False),
    ],
)
def test_values_are_compared_as_the_schema_means_them(given, expected, right):
    """Numbers are equal whatever they are written as where a number is asked for; texts are equal to the letter."""
    assert judge(tagged(ToolCall("open", given)), [ToolCall("open", expected)], TOOLS).right is right


def test_defaults_and_nested_numbers_are_normalised():
    """A default that is given is as good as one that is left out, and lists are compared by their items' type."""
    assert judge(
        tagged(ToolCall("weigh", {"what": "a", "exact": False})), [ToolCall("weigh", {"what": "a"})], TOOLS
    ).right
    assert judge(
        tagged(ToolCall("list", {"folders": ["1", 2.0]})), [ToolCall("list", {"folders": [1, 2]})], TOOLS
    ).right


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (ToolCall("shut", {}), "no tool is called shut"),
        (ToolCall("open", {"vault": "a"}), "needs code"),
        (ToolCall("open", {"vault": "a", "code": 1, "x": 1}), "has no x"),
        (ToolCall("open", {"vault": "a", "code": 1.5}), "another type as code"),
        (ToolCall("weigh", {"what": "a", "exact": 1}), "another type as exact"),
        (ToolCall("list", {"folders": [], "order": "left"}), "another type as order"),
    ],
)
def test_a_call_that_does_not_fit_its_schema_is_invalid(call, reason):
    """Unknown tools and arguments, missing arguments and wrong types are each named."""
    assert reason in str(problem(call, TOOLS))
    judged = judge(tagged(call), [call], TOOLS)
    assert judged.right
    assert not judged.valid


@pytest.mark.parametrize(
    ("rule", "given", "fits"),
    [
        (True, [1], True),
        ({"enum": None}, "a", True),
        ({"type": "array", "items": [{"type": "string"}]}, [1], True),
        ({"type": ["integer", "null"]}, "12", True),
        ({"type": ["integer", "null"]}, "a", False),
        ({"type": [["integer"]]}, "a", True),
        ({"type": {"a": 1}}, "a", True),
        ({"$ref": "#/definitions/a"}, {"a": 1}, True),
        ({"type": "object", "properties": {"b": True}}, {"b": 1}, True),
        (None, 1, True),
    ],
)
def test_a_rule_that_is_no_simple_schema_bounds_nothing(rule, given, fits):
    """Schemas that JSON allows beside a type by name, and what is no schema, are measured by, never a crash."""
    call = ToolCall("open", {"vault": given})
    judged = judge(tagged(call), [call], (tool("open", vault=rule),))
    assert judged.right
    assert judged.valid is fits


@pytest.mark.parametrize(
    ("parameters", "fits"),
    [
        ({"required": True, "properties": {"a": {}}}, True),
        ({"required": [["a"], 1], "properties": {"a": {}}}, True),
        ({"properties": True}, False),
        ({}, False),
        (None, False),
        ({"$ref": "#/definitions/a"}, True),
        ({"anyOf": [{"properties": {"a": {}}}]}, True),
        ({"additionalProperties": {"type": "string"}}, True),
        ({"additionalProperties": False}, False),
    ],
)
def test_arguments_that_a_schema_lists_elsewhere_are_not_unknown(parameters, fits):
    """An argument is unknown only where the properties are all that the schema tells of arguments."""
    call = ToolCall("open", {"a": 1})
    tools = ({"type": "function", "function": {"name": "open", "parameters": parameters}},)
    assert judge(tagged(call), [call], tools).valid is fits


KEYS = st.sampled_from(["type", "properties", "required", "enum", "items", "default", "a", "function", "name", "open"])
WORDS = st.sampled_from(["string", "integer", "array", "object", "open", "a"])
SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(SCHEMAS, SCHEMAS)
@settings(max_examples=200, deadline=None)
def test_no_schema_breaks_the_judgement(parameters, other):
    """Whatever stands as a tool or its parameters, the expected call is right."""
    call = ToolCall("open", {"a": "x", "b": [1, {"a": 2}]})
    tools = ({"type": "function", "function": {"name": "open", "parameters": parameters}}, other)
    assert judge(tagged(call), [call], tools).right


def test_an_answer_that_nests_without_end_is_wrong():
    """Lists deeper than the interpreter follows are a wrong answer."""
    call = ToolCall("open", {"a": 1})
    for depth in (500, 900, 5000):
        nested = '{"name": "open", "arguments": {"a": ' + "[" * depth + "]" * depth + "}}"
        assert not judge(f"<tool_call>{nested}</tool_call>", [call], ()).right
        assert not judge(nested, [call], ()).right


def test_names_and_arguments_are_judged_apart():
    """A right tool with wrong arguments, and right arguments to a wrong tool, are told apart."""
    truth = [ToolCall("open", {"vault": "a", "code": 1})]
    wrong_value = judge(tagged(ToolCall("open", {"vault": "b", "code": 1})), truth, TOOLS)
    wrong_tool = judge(tagged(ToolCall("shut", {"vault": "a", "code": 1})), truth, TOOLS)
    assert (wrong_value.valid, wrong_value.names, wrong_value.arguments, wrong_value.right) == (
        True,
        True,
        False,
        False,
    )
    assert (wrong_tool.valid, wrong_tool.names, wrong_tool.arguments, wrong_tool.right) == (False, False, True, False)
    twice = judge(tagged(*truth, *truth), truth, TOOLS)
    assert twice.valid
    assert not (twice.names)
    assert not (twice.right)
