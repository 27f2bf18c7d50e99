"""The grammar of an answer that must be JSON or calls of tools, in the forms of llguidance and vLLM.

Calls have the form in which the built-in templates show them to a model, and in which
:mod:`loraloop.serve.tool_calls` finds them. A line break may stand where other models' templates have one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loraloop.errors import GrammarError
from loraloop.records import Grammar

if TYPE_CHECKING:
    from llguidance import LLParserLimits

LARGEST = 32 * 1024
"""Characters of all schemas of a request; at this size a check takes a quarter of a second at most."""
MOST_PATTERNS = 64
"""``patternProperties`` of all schemas of a request: each is compared with each other one and with each property."""
FORMAT = "response_format"
AS_TRAINED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""White space of a call's arguments, as the templates write it."""
AS_WRITTEN = {"whitespace_pattern": r" ?|\n {0,16}"}
"""White space of other JSON: on one line or indented, but never much of it, which a weak model would write."""


def check(grammar: Grammar | None) -> None:
    """Whether answers can be held to a grammar.

    Raises:
        GrammarError: A schema takes too much work, or says what cannot be held to; names the parameter and the
            words at fault.
    """
    if grammar is None:
        return
    schemas = _schemas(grammar)
    sizes = {name: _size(name, schema) for name, schema in schemas.items()}
    if sum(sizes.values()) > LARGEST:
        longest = max(sizes, key=lambda name: sizes[name])
        raise _refused(longest, f"the request's schemas have {sum(sizes.values())} characters, more than {LARGEST}")
    patterns = {name: _patterns(schema) for name, schema in schemas.items()}
    if sum(patterns.values()) > MOST_PATTERNS:
        most = max(patterns, key=lambda name: patterns[name])
        why = f"the request's schemas have {sum(patterns.values())} patternProperties, more than {MOST_PATTERNS}"
        raise _refused(most, why)
    for name, schema in schemas.items():
        _check(name, schema)


def text(grammar: Grammar) -> str:
    """The grammar as llguidance reads it."""
    if grammar.free:
        return _free(grammar)
    forms = [] if grammar.schema is None else ["json"]
    lines = [] if grammar.schema is None else [f"json: %json {_schema(grammar.schema, AS_WRITTEN)}"]
    if grammar.tools:
        forms.append("calls")
        lines.append("calls: call (BREAK? call)*" if grammar.parallel else "calls: call")
        lines += ['call: "<tool_call>" inside', *_calls(grammar)]
    return "\n".join([f"start: {' | '.join(forms)}", *lines])


def _free(grammar: Grammar) -> str:
    """Text of any kind, in which each call is held to its schema from where it begins."""
    start = "call* TEXT" if grammar.parallel else "call | TEXT"
    lines = [r"TEXT: /(.|\n)*/", 'begun[lazy]: TEXT "<tool_call>"', "call: begun inside"]
    return "\n".join([f"start: {start}", *lines, *_calls(grammar)])


def _calls(grammar: Grammar) -> list[str]:
    """The lines that say what follows the beginning of a call."""
    lines = [f"inside: {' | '.join(f'call_{at}' for at in range(len(grammar.tools)))}", r'BREAK: "\n"']
    for at, (name, schema) in enumerate(grammar.tools):
        begin = json.dumps(_begin(name))
        lines.append(f'call_{at}: BREAK? {begin} arguments_{at} "}}" BREAK? "</tool_call>"')
        lines.append(f"arguments_{at}: %json {_schema(schema, AS_TRAINED)}")
    return lines


def for_vllm(grammar: Grammar) -> dict[str, Any]:
    """The grammar as vLLM's ``structured_outputs``: a schema, or tags with a schema each."""
    if not grammar.tools:
        return {"json": dict(grammar.schema or {})}
    tags = [
        {"type": "tag", "begin": f"<tool_call>{_begin(name)}", "content": _json(schema), "end": "}</tool_call>"}
        for name, schema in grammar.tools
    ]
    form: dict[str, Any] = {"tags": tags, "at_least_one": not grammar.free, "stop_after_first": not grammar.parallel}
    if grammar.free:
        form |= {"type": "triggered_tags", "triggers": ["<tool_call>"]}
    else:
        form |= {"type": "tags_with_separator", "separator": "\n"}
    if grammar.schema is not None:
        form = {"type": "or", "elements": [_json(grammar.schema), form]}
    return {"structural_tag": json.dumps({"type": "structural_tag", "format": form})}


def limits() -> LLParserLimits:
    """How much work and memory one grammar may take; a state of the lexer takes up to 2 kB."""
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=50_000, verbose_errors=False)


def param_of(grammar: Grammar) -> str:
    """The parameter at fault where it is not known which schema is."""
    return "tools" if grammar.schema is None else FORMAT


def _schemas(grammar: Grammar) -> dict[str, Mapping[str, Any]]:
    own = {} if grammar.schema is None else {f"{FORMAT}.json_schema.schema": grammar.schema}
    return own | {f"tools: parameters of {name}": schema for name, schema in grammar.tools}


def _size(name: str, schema: Mapping[str, Any]) -> int:
    try:
        return len(json.dumps(schema))
    except RecursionError:
        raise _refused(name, "it is nested too deeply") from None


def _patterns(schema: Mapping[str, Any]) -> int:
    """How many ``patternProperties`` a schema has, at whatever depth."""
    count, left = 0, [schema]
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            patterns = part.get("patternProperties")
            count += len(patterns) if isinstance(patterns, Mapping) else 0
        left += part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
    return count


def _begin(name: str) -> str:
    """A call up to its arguments."""
    return f'{{"name": {json.dumps(name)}, "arguments": '


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": dict(schema)}


def _check(name: str, schema: Mapping[str, Any]) -> None:
    from llguidance import LLMatcher

    try:
        failed, told = LLMatcher.validate_grammar_with_warnings(
            LLMatcher.grammar_from_json_schema(_schema(schema, AS_WRITTEN)), limits=limits()
        )
    except ValueError as error:
        failed, told = True, [str(error)]
    if failed:
        raise _refused(name, " ".join(" ".join(told).split())[:500])


def _refused(name: str, why: str) -> GrammarError:
    param = name.partition(":")[0].partition(".")[0]
    return GrammarError(f"{name}: answers cannot be held to this schema: {why}", param)


def _schema(schema: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The schema with options of this server; a client's own would loosen it."""
    return json.dumps({**schema, "x-guidance": options})
