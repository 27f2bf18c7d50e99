"""The tools of the made-up world: their schemas, kept short, as every conversation repeats them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _schema(name: str, **arguments: str) -> Mapping[str, Any]:
    properties = {argument: {"type": kind} for argument, kind in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS: Mapping[str, Mapping[str, Any]] = {
    "read_panel": _schema("read_panel", panel="string"),
    "open_vault": _schema("open_vault", vault="string", code="integer"),
    "count_flips": _schema("count_flips", flips="string"),
    "list_files": _schema("list_files", folder="string"),
}
"""Schemas by name, in OpenAI's form."""
