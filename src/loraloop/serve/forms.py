"""The parts of a chat request that say which form its answer must have: ``response_format`` and ``tool_choice``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from loraloop.records import Grammar

NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
"""What the API means by a function without ``parameters``."""

ANY_ARGUMENTS = {"type": "object"}


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class TextFormat(_Strict):
    """Text of any kind."""

    type: Literal["text"]


class JsonObject(_Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class Schema(_Strict):
    """A JSON schema; answers are held to it whether ``strict`` is set or not."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    body: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class JsonSchema(_Strict):
    """JSON under a schema."""

    type: Literal["json_schema"]
    json_schema: Schema


class Named(_Strict):
    """A function by its name."""

    name: Annotated[str, Field(min_length=1, max_length=64)]


class NamedTool(_Strict):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: Named


def _format(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"[{kind}]" if kind in ("text", "json_object", "json_schema") else None


def _choice(value: Any) -> str:
    return "[word]" if isinstance(value, str) else "[tool]"


# The names in brackets are no part of the parameter that an error names.
ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("[text]")]
    | Annotated[JsonObject, Tag("[json_object]")]
    | Annotated[JsonSchema, Tag("[json_schema]")],
    Discriminator(
        _format, custom_error_type="format", custom_error_message="its type must be text, json_object or json_schema"
    ),
]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("[word]")] | Annotated[NamedTool, Tag("[tool]")],
    Discriminator(_choice),
]


def require_choice(choice: Any, names: Sequence[str]) -> None:
    """Check that a choice can be met by tools of these names.

    Raises:
        ValueError: A tool must be called, and there is none, or not the named one.
    """
    if choice == "required" and not names:
        raise ValueError("required needs tools")
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        offered = ", ".join(names[:8]) or "none"
        raise ValueError(f"no tool is called {choice.function.name}; there are: {offered}")


def require_names_once(names: Sequence[str]) -> None:
    """Check that each name means one tool.

    Raises:
        ValueError: Two have the same name.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"more than one tool is called {', '.join(twice[:8])}: give each a name of its own")


def grammar(
    form: Any,
    choice: Any,
    tools: Sequence[tuple[str, dict[str, Any] | None]],
    *,
    parallel: bool,
    strict: Collection[str] = (),
) -> Grammar | None:
    """What an answer is held to; ``None`` where it is free.

    Args:
        form: The ``response_format``; with tools that may be called, an answer has this form or is calls.
        choice: The ``tool_choice``.
        tools: That may be called: names and ``parameters``.
        parallel: Whether an answer may be more than one call.
        strict: Names of tools whose arguments are held to their schemas, also where the model chooses to call.
    """
    named = choice.function.name if isinstance(choice, NamedTool) else None
    must = choice == "required" or named is not None
    schema = None if must else _schema(form)
    free = schema is None and not must
    if free and not strict:
        return None
    arguments = [
        (name, ANY_ARGUMENTS if free and name not in strict else _arguments(given))
        for name, given in tools
        if named in (None, name)
    ]
    return Grammar(schema=schema, tools=tuple(arguments), parallel=parallel and named is None, free=free)


def _schema(form: Any) -> dict[str, Any] | None:
    if isinstance(form, JsonSchema):
        return {"type": "object"} if form.json_schema.body is None else form.json_schema.body
    return {"type": "object"} if isinstance(form, JsonObject) else None


def _arguments(parameters: dict[str, Any] | None) -> dict[str, Any]:
    return {"type": "object", **parameters} if parameters else NO_ARGUMENTS
