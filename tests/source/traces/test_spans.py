"""OTLP/JSON: spans of the GenAI conventions, today's and earlier ones, and conversations over several of them."""

import json

from loraloop.source.traces import reading


def value(each):
    """A value as OTLP writes it."""
    if isinstance(each, bool):
        return {"boolValue": each}
    if isinstance(each, int):
        return {"intValue": str(each)}
    if isinstance(each, list):
        return {"arrayValue": {"values": [value(one) for one in each]}}
    if isinstance(each, dict):
        return {"kvlistValue": {"values": keyed(each)}}
    return {"stringValue": each}


def keyed(values):
    return [{"key": key, "value": value(each)} for key, each in values.items()]


def span(number, attributes, trace="t1", parent=None, events=(), **more):
    """A span that began in second ``number``."""
    return {
        "traceId": trace, "spanId": f"s{number}", "parentSpanId": parent or "", "name": "n",
        "startTimeUnixNano": str((1790000000 + number) * 10**9), "endTimeUnixNano": str((1790000002 + number) * 10**9),
        "attributes": keyed(attributes), "events": [{"name": name, "attributes": keyed(each)} for name, each in events],
        **more,
    }  # fmt: skip


def export(*spans):
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def read(*rows):
    aside = []
    found = reading.conversations([(f"log:{number}", row) for number, row in enumerate(rows, 1)], aside)
    return found, [(one.item, one.reason) for one in aside]


def said(trace):
    return [(m.role, m.text or [(c.name, dict(c.arguments)) for c in m.tool_calls]) for m in trace.messages]


def text(role, content):
    return {"role": role, "parts": [{"type": "text", "content": content}]}


CALL = {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": "x"}}]}
RESULT = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "lit"}]}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
SIMPLE = [("user", "q"), ("assistant", "a")]
LOOKED = [("user", "q"), ("assistant", [("look", {"at": "x"})]), ("tool", "lit"), ("assistant", "a")]


def chat(past, answer, **more):
    """Attributes of a call by today's conventions."""
    return CHAT | {"gen_ai.input.messages": past, "gen_ai.output.messages": [answer]} | more


TODAY = chat(
    json.dumps([text("user", "q"), CALL, RESULT]), text("assistant", "a"),
    **{
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "s"}]),
        "gen_ai.tool.definitions": json.dumps([{"type": "function", "name": "look", "parameters": {"type": "object"}}]),
        "gen_ai.usage.input_tokens": 7, "gen_ai.conversation.id": "conv",
    },
)  # fmt: skip
NUMBERED = {
    "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "q", "gen_ai.prompt.1.role": "assistant",
    "gen_ai.prompt.1.tool_calls.0.id": "c1", "gen_ai.prompt.1.tool_calls.0.name": "look",
    "gen_ai.prompt.1.tool_calls.0.arguments": '{"at": "x"}', "gen_ai.prompt.2.role": "tool",
    "gen_ai.prompt.2.tool_call_id": "c1", "gen_ai.prompt.2.content": "lit",
    "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "a",
}  # fmt: skip
INFERENCE = {
    "openinference.span.kind": "LLM", "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.contents.0.message_content.type": "text",
    "llm.input_messages.0.message.contents.0.message_content.text": "q",
    "llm.input_messages.1.message.role": "assistant",
    "llm.input_messages.1.message.tool_calls.0.tool_call.id": "c1",
    "llm.input_messages.1.message.tool_calls.0.tool_call.function.name": "look",
    "llm.input_messages.1.message.tool_calls.0.tool_call.function.arguments": '{"at": "x"}',
    "llm.input_messages.2.message.role": "tool", "llm.input_messages.2.message.tool_call_id": "c1",
    "llm.input_messages.2.message.content": "lit",
    "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "a",
}  # fmt: skip
EVENTS = [
    ("gen_ai.user.message", {"content": "q"}),
    (
        "gen_ai.assistant.message",
        {"tool_calls": json.dumps([{"id": "c1", "function": {"name": "look", "arguments": {"at": "x"}}}])},
    ),
    ("gen_ai.tool.message", {"id": "c1", "content": "lit"}),
    ("gen_ai.choice", {"index": 0, "message": json.dumps({"role": "assistant", "content": "a"})}),
]


def test_todays_attributes_say_the_whole_call():
    """Messages, instructions, tools, tokens and the conversation of a span by today's conventions are all read."""
    found, aside = read(export(span(1, TODAY)))
    (trace,) = found.traces
    assert (aside, said(trace)) == ([], [("system", "s"), *LOOKED])
    assert (trace.conversation, trace.prompt_tokens, trace.model, trace.duration) == ("conv", 7, "m", 2.0)
    assert [tool["function"]["name"] for tool in trace.tools] == ["look"]
    assert found.rows == {"OTLP spans": 1}


def test_an_answer_that_was_served_here_keeps_its_session():
    """A span of a served answer is the session that it names, and tells its whole past in a named conversation too."""
    own = {"gen_ai.provider.name": "loraloop", "gen_ai.conversation.id": "talk"}
    one, two = (
        chat([text("user", asked)], text("assistant", "a"), **own, **{"gen_ai.response.id": asked})
        for asked in ("s1", "s2")
    )
    other = chat([text("user", "q")], text("assistant", "a"), **{"gen_ai.response.id": "s3"})
    found, _ = read(export(span(1, one, "t1"), span(2, two, "t2"), span(3, other, "t3")))
    assert {trace.id: len(trace.messages) for trace in found.traces} == {"s1": 2, "s2": 2, "t3.s3": 2}


def test_earlier_names_say_the_same():
    """Numbered attributes, OpenInference's, events, details, JSON in one attribute and whole bodies read alike."""
    whole = {
        "gen_ai.input.messages": [text("user", "q"), CALL, RESULT],
        "gen_ai.output.messages": [text("assistant", "a")],
    }
    body = {"messages": [{"role": "user", "content": "q"}]}
    spans = [
        span(1, NUMBERED, "t1"),
        span(2, INFERENCE, "t2"),
        span(3, CHAT, "t3", events=EVENTS),
        span(4, CHAT, "t4", events=[("gen_ai.client.inference.operation.details", whole)]),
        span(5, CHAT | {"gen_ai.prompt": json.dumps(body["messages"]), "gen_ai.completion": "a"}, "t5"),
        span(6, {"openinference.span.kind": "LLM", "input.value": json.dumps(body), "output.value": "a"}, "t6"),
    ]
    found, aside = read(export(*spans))
    assert (aside, [said(trace) for trace in found.traces]) == ([], [*[LOOKED] * 4, *[SIMPLE] * 2])


def test_a_conversation_is_put_together_over_spans():
    """In a conversation that is named, calls that tell only what is new get their past, and tool spans their place."""
    named = {"gen_ai.conversation.id": "conv"}
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look", "gen_ai.tool.call.id": "c1",
            "gen_ai.tool.call.result": "lit"} | named  # fmt: skip
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.input.messages": [text("user", "q")],
             "gen_ai.output.messages": [text("assistant", "a")]} | named  # fmt: skip
    found, aside = read(
        export(
            span(0, agent), span(1, chat([text("user", "q")], CALL) | named, parent="s0"), span(2, tool, parent="s0"),
            span(3, CHAT | {"gen_ai.output.messages": [text("assistant", "a")]} | named, parent="s0"),
        ),
        export(span(5, chat([text("user", "and?")], text("assistant", "b")) | named, "t2")),
    )  # fmt: skip
    assert (aside, [said(each) for each in found.traces]) == ([], [[*LOOKED, ("user", "and?"), ("assistant", "b")]])
    assert (found.counts["joined"], found.counts["other spans"]) == (2, 1)


def test_a_tool_span_need_not_name_the_conversation():
    """A tool span without a conversation answers the call of its id in any conversation of its trace."""
    one, other = ({"gen_ai.conversation.id": name} for name in ("one", "other"))
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look", "gen_ai.tool.call.id": "c1",
            "gen_ai.tool.call.result": "lit"}  # fmt: skip
    found, _ = read(
        export(
            span(1, chat([text("user", "q")], CALL) | one), span(2, tool),
            span(3, CHAT | {"gen_ai.output.messages": [text("assistant", "a")]} | one),
            span(4, chat([text("user", "q")], text("assistant", "a")) | other),
        )
    )  # fmt: skip
    assert [said(each) for each in found.traces] == [LOOKED, SIMPLE]


def test_calls_of_one_trace_that_ask_apart_stay_apart():
    """Without a conversation's name, two questions in one trace are two conversations."""
    found, _ = read(
        export(
            span(1, chat([text("user", "q")], text("assistant", "a"))),
            span(2, chat([text("user", "r")], text("assistant", "b"))),
        )
    )
    assert [said(trace) for trace in found.traces] == [SIMPLE, [("user", "r"), ("assistant", "b")]]


def test_a_missing_parent_costs_what_cannot_be_put_together_alone():
    """A call that is whole is kept where a parent is missing, and counted; one that needs other spans is set aside."""
    tail = CHAT | {"gen_ai.output.messages": [text("assistant", "a")]}
    found, aside = read(
        export(
            span(1, chat([text("user", "q")], text("assistant", "a")), "t1", parent="gone"),
            span(2, chat([text("user", "q")], CALL), "t2", parent="gone"), span(3, tail, "t2", parent="gone"),
        )
    )  # fmt: skip
    assert [trace.id for trace in found.traces] == ["t1.s1", "t2.s2"]
    assert found.counts["traces with a span whose parent is missing"] == 2
    assert [(place, reason[:38]) for place, reason in aside] == [
        ("log:1 span s3", "a span of its trace names a parent tha")
    ]


def test_a_trace_twice_an_error_and_a_span_without_content_are_counted():
    """Spans that came twice count once; a failed call and one whose content was not recorded are set aside."""
    once = export(span(1, chat([text("user", "q")], text("assistant", "a"))))
    failed = span(2, chat([text("user", "q")], text("assistant", "a")), "t2", status={"code": 2, "message": "boom"})
    found, aside = read(once, once, export(failed, span(3, CHAT, "t3")), export(), {"resourceSpans": "no"})
    assert (len(found.traces), found.counts["spans that came twice"]) == (1, 1)
    assert aside[:2] == [("log:4", "the export holds no span"), ("log:5", "the export holds no span")]
    assert [(place, reason[:24]) for place, reason in aside[2:]] == [
        ("log:3 span s2", "the span ended with an e"), ("log:3 span s3", "the span says no answer "),
    ]  # fmt: skip


def test_an_export_in_a_file_is_read_and_half_of_one_is_set_aside(tmp_path):
    """A .json file holds one export or a list of them; one that ends in the middle is set aside by its name."""
    whole = json.dumps(export(span(1, chat([text("user", "q")], text("assistant", "a")))))
    for name, content in (("a.json", whole), ("b.json", f"[{whole}]"), ("half.json", whole[:-9])):
        (tmp_path / name).write_text(content)
    aside = []
    assert len(list(reading.files(sorted(tmp_path.iterdir()), aside))) == 2
    assert [one.item for one in aside] == [str(tmp_path / "half.json")]
