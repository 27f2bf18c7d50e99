"""The tools that a conversation offers, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loraloop.source.forms.draft import Row, filled, parsed

COLUMNS = ("tools", "functions")
"""OpenAI's present and earlier column; LLaMA-Factory writes the first one as JSON text."""


def read(row: Row) -> tuple[Mapping[str, Any], ...]:
    """The schemas in a row's column, each with ``type`` and ``function``.

    Raises:
        ValueError: They are no schemas; says which, and why.
    """
    value = next((row[name] for name in COLUMNS if filled(row.get(name))), None)
    if value is None:
        return ()
    value = parsed(value, "tools")
    if isinstance(value, Mapping):
        value = [value]
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"tools are a list of schemas, not {type(value).__name__}")
    return tuple(_tool(parsed(tool, f"tool {number}"), number) for number, tool in enumerate(value, 1))


def _tool(tool: Any, number: int) -> Mapping[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError(f"tool {number} is no schema: it is an object with a name and parameters")
    if isinstance(schema := function.get("parameters"), str):
        schema = parsed(schema, f"the parameters of {function['name']}")
        function = {**function, "parameters": schema}
    if schema is not None and not _is_schema(schema):
        raise ValueError(f"tool {number} ({function['name']}): parameters is no JSON schema of an object")
    return {"type": "function", "function": dict(function)}


def _is_schema(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or schema.get("type", "object") not in ("object", "dict"):
        return False
    properties = schema.get("properties")
    return properties is None or (
        isinstance(properties, Mapping) and all(isinstance(each, Mapping | bool) for each in properties.values())
    )
