"""What a span says of a model's call: OpenTelemetry's GenAI conventions, OpenInference and OpenLLMetry.

Names: https://github.com/open-telemetry/semantic-conventions-genai (registry and events; those of v1.36 and before
too), https://github.com/Arize-ai/openinference (semantic conventions), https://github.com/traceloop/openllmetry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from loraloop.core import messages
from loraloop.records import Message
from loraloop.source.traces import answers
from loraloop.source.traces.values import decoded, first, items, mapping

Attributes = Mapping[str, Any]
Event = tuple[str, Attributes]
CHAT = frozenset({"chat", "completion", "text_completion", "generate_content", "response", "responses", "llm"})
TOOL = frozenset({"execute_tool", "tool"})
AROUND = frozenset({"invoke_agent", "create_agent", "invoke_workflow", "agent", "chain", "workflow", "task"})
KINDS = ("gen_ai.operation.name", "openinference.span.kind", "traceloop.span.kind", "llm.request.type")
DETAILS = "gen_ai.client.inference.operation.details"
"""The event that may carry the attributes of messages in the span's place."""


def kind(attributes: Attributes) -> str:
    """``chat`` for a call of a model, ``tool`` for one of a tool, ``around`` for what holds calls, else empty."""
    said = str(first(attributes, *KINDS) or "").lower()
    if said in TOOL or "gen_ai.tool.call.result" in attributes:
        return "tool"
    if said in AROUND:
        return "around"
    return "chat" if said in CHAT or speaks(attributes) else ""


def speaks(attributes: Attributes) -> bool:
    """Whether it tells messages."""
    begins = ("gen_ai.input.messages", "gen_ai.prompt", "gen_ai.output.messages", "llm.input_messages", "llm.prompts")
    return any(name.startswith(begins) for name in attributes)


def said(attributes: Attributes, events: Sequence[Event]) -> tuple[list[Message], list[Message], Any]:
    """What was asked, what was answered, and the tools that were offered, as far as the span says.

    Raises:
        ValueError: A message is none.
    """
    for name, more in events:
        if name in (DETAILS, "gen_ai.content.prompt", "gen_ai.content.completion"):
            attributes = {**attributes, **more}
    nested = _nested(attributes)
    system = list(_messages(attributes.get("gen_ai.system_instructions"), "system"))
    past = list(_messages(_input(attributes, nested), "user"))
    output = list(_messages(_output(attributes, nested), "assistant"))
    spoken = [] if past else list(_spoken(events, answers_too=False))
    chosen = [] if output else list(_spoken(events, answers_too=True))
    asked = [*(past or spoken)]
    if asked and asked[0].role == "system":
        system = []
    whole = [*system, *asked]
    if not (whole and (output or chosen)):
        whole, output = _by_value(attributes, whole, [*output, *chosen])
    return whole, output or chosen, _tools(attributes, nested)


def _input(attributes: Attributes, nested: Mapping[str, Any]) -> Any:
    found = first(attributes, "gen_ai.input.messages", "gen_ai.request.messages", "gen_ai.prompt", "llm.input_messages")
    return found or first(nested, "gen_ai.input.messages", "gen_ai.prompt", "llm.input_messages", "llm.prompts")


def _output(attributes: Attributes, nested: Mapping[str, Any]) -> Any:
    found = first(attributes, "gen_ai.output.messages", "gen_ai.completion", "llm.output_messages")
    return found or first(
        nested, "gen_ai.output.messages", "gen_ai.completion", "llm.output_messages", "llm.completions"
    )


def _nested(attributes: Attributes) -> dict[str, Any]:
    """Attributes of numbered names, ``gen_ai.prompt.0.role``, as lists of objects by the name before the number."""
    trees: dict[str, Any] = {}
    for name, value in attributes.items():
        words = name.split(".")
        at = next((place for place, word in enumerate(words) if word.isdecimal()), None)
        if at is None:
            continue
        node = trees.setdefault(".".join(words[:at]), {})
        for word in words[at:-1]:
            below = node.setdefault(word, {})
            if not isinstance(below, dict):
                below = node[word] = {}
            node = below
        node[words[-1]] = value
    return {name: _listed(tree) for name, tree in trees.items()}


def _listed(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(key.isdecimal() for key in tree):
        return [_listed(tree[key]) for key in sorted(tree, key=int)]
    return {key: _listed(value) for key, value in tree.items()}


def _messages(value: Any, role: str) -> Iterator[Message]:
    """The messages of a value; a text is what ``role`` says.

    Raises:
        ValueError: One of them is none.
    """
    value = decoded(value)
    if value is None or value == "":
        return
    if isinstance(value, Mapping):
        value = value.get("messages", [value])
    if isinstance(value, list) and role == "system":  # a list of parts, or of messages
        value = [each if isinstance(each, Mapping) and "role" in each else {"parts": [each]} for each in value]
    for item in value if isinstance(value, list) else [value]:
        for each in _openai(item, role):
            yield messages.read(each)


def _openai(item: Any, role: str) -> Iterator[dict[str, Any]]:
    """The messages in OpenAI's form of one in any: with parts, with OpenInference's names, with flat calls."""
    if not isinstance(item, Mapping):
        yield {"role": role, "content": item}
        return
    item = mapping(item["message"]) if isinstance(item.get("message"), Mapping) else item
    content, calls, results = _content(item), [], []
    for part in items(item.get("parts")):
        part = part if isinstance(part, Mapping) else {"type": "text", "content": part}
        match part.get("type", "text"):
            case "tool_call":
                calls.append(part)
            case "tool_call_response":
                results.append(part)
            case "reasoning" | "thinking":
                pass
            case "text":
                content = [*(content or []), {"type": "text", "text": part.get("content", part.get("text"))}]
            case other:
                content = [*(content or []), {"type": other}]
    calls += [
        mapping(call.get("tool_call", call)) for call in items(item.get("tool_calls")) if isinstance(call, Mapping)
    ]
    for result in results:
        told = first(result, "response", "result", "content")
        yield {"role": "tool", "tool_call_id": result.get("id"), "content": text(told)}
    if content or calls or not results:
        speaker = str(item.get("role") or role)
        said: dict[str, Any] = {
            "role": {"human": "user", "ai": "assistant", "model": "assistant"}.get(speaker, speaker)
        }
        said["content"] = "".join(each["text"] for each in content) if _plain(content) else content
        if calls:
            said["tool_calls"] = [_call(call) for call in calls]
        if (answered := first(item, "tool_call_id", "id")) is not None and speaker == "tool":
            said["tool_call_id"] = answered
        yield said


def _plain(content: Any) -> bool:
    return isinstance(content, list) and len(content) == 1 and isinstance(content[0].get("text"), str)


def _content(item: Mapping[str, Any]) -> Any:
    content = item.get("content")
    if isinstance(content, str) and content.startswith('[{"type"'):
        content = decoded(content)
    if not content and (contents := items(item.get("contents"))):  # OpenInference
        content = [mapping(mapping(each).get("message_content")) or each for each in contents]
    if isinstance(content, list):
        made = [each for each in content if not (isinstance(each, Mapping) and each.get("type") == "reasoning")]
        return [each if isinstance(each, Mapping) else {"type": "text", "text": each} for each in made]
    if isinstance(content, Mapping):
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS, default=str).decode()
    return content


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = mapping(call.get("function")) or call
    return {"id": call.get("id"), "function": {"name": function.get("name"), "arguments": function.get("arguments")}}


def _spoken(events: Sequence[Event], *, answers_too: bool) -> Iterator[Message]:
    """The messages that events of v1.36 and before tell: the answers alone, or all but these."""
    for name, about in events:
        chosen = name == "gen_ai.choice"
        begin, _, role = name.removesuffix(".message").rpartition(".")
        if chosen is not answers_too or not (chosen or (begin == "gen_ai" and name.endswith(".message"))):
            continue
        body = {**about, **mapping(about.get("body")), **mapping(about.get("message"))}
        told = {**body, "role": body.get("role") or ("assistant" if chosen else role)}
        for each in _openai(told, "user"):
            yield messages.read(each)
        if chosen:
            return


def _by_value(
    attributes: Attributes, asked: list[Message], answered: list[Message]
) -> tuple[list[Message], list[Message]]:
    """The request and the response that OpenInference keeps as a whole."""
    request, response = decoded(attributes.get("input.value")), decoded(attributes.get("output.value"))
    if not asked and request:
        body = request if isinstance(request, Mapping) else {"input": request}
        asked = list(answers.asked(body)[0])
    if not answered and response:
        body = response if isinstance(response, Mapping) else {"content": response}
        answered = [answers.answer(body)[0]]
    return asked, answered


def _tools(attributes: Attributes, nested: Mapping[str, Any]) -> Any:
    if found := items(attributes.get("gen_ai.tool.definitions")):
        return found
    if functions := nested.get("llm.request.functions"):
        return functions
    return [
        decoded(mapping(each).get("tool.json_schema") or mapping(mapping(each).get("tool")).get("json_schema"))
        for each in items(nested.get("llm.tools"))
    ]


def text(value: Any) -> str:
    """A tool's result as text."""
    value = decoded(value) if isinstance(value, str) and value.startswith('"') else value
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str).decode()
