"""The arguments of a tool call as the fields of a form, and back, held to the tool's JSON schema.

The schema came from a client. It is neither followed to other addresses nor given time without end: ``pattern`` and
``patternProperties`` are not checked, and a check ends after :data:`MOST_REFERENCES` references.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from loraloop.core.messages import as_json

MOST_REFERENCES = 1000
LONGEST_LINE = 60
"""Characters that are edited in one line."""
LONGEST_PROBLEM = 200
Kind = Literal["text", "number", "integer", "choice", "json"]
NO_SCHEMA = "The tool's schema cannot be read, so that its arguments are not checked."


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One argument.

    Attributes:
        kind: ``json`` holds any value, as JSON; ``choice`` is one of ``choices``.
        value: As it stands in the form.
        choices: What is sent, and what is shown.
        problem: What is wrong with it.
        null: Whether it is null, which ``value`` shows as ``null``.
        blank: Whether it is there and empty, so that only a box can leave it out.
        left_out: Whether that box is ticked.
    """

    name: str
    kind: Kind
    value: str = ""
    required: bool = False
    choices: tuple[tuple[str, str], ...] = ()
    about: str = ""
    problem: str = ""
    null: bool = False
    blank: bool = False
    left_out: bool = False

    @property
    def long(self) -> bool:
        """Whether it needs more than one line."""
        return self.kind == "json" or len(self.value) > LONGEST_LINE or "\n" in _lines(self.value)


@dataclass(frozen=True, slots=True)
class Read:
    """The arguments that a form gives: their fields, each with its problem, their values, and what else is wrong."""

    fields: tuple[Field, ...]
    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def wrong(self) -> bool:
        """Whether anything is."""
        return bool(self.problem) or any(each.problem for each in self.fields)


def shown(schema: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of a call: those of the schema, then arguments that the schema does not name."""
    return tuple(
        _told(replace(each, value=_written(each, values[each.name])), values) if each.name in values else each
        for each in _fields(schema, values)
    )


def read(
    schema: Mapping[str, Any],
    given: Mapping[str, str],
    was: Mapping[str, Any] | None = None,
    left_out: Collection[str] = (),
) -> Read:
    """What was written into the fields; an empty field that is not required is left out.

    Args:
        schema: Of the arguments.
        given: The fields by name, as they were sent.
        was: The arguments that the form was made of: a field that nobody touched keeps its value, be it null, blank,
            of another type, or absent. ``None`` for a new call.
        left_out: Names of arguments that are to be left out.
    """
    fields, values = [], {}
    for each in _fields(schema, given):
        filled = replace(each, value=given.get(each.name, ""), left_out=each.name in left_out)
        if was is not None and _untouched(filled, was):
            filled = _told(filled, was)
            if filled.name in was and not filled.left_out:
                values[filled.name] = was[filled.name]
        elif filled.value.strip() or (filled.required and filled.kind == "text"):
            try:
                values[each.name] = _value(filled)
            except ValueError as error:
                filled = replace(filled, problem=str(error))
        elif filled.required:
            filled = replace(filled, problem="This is required.")
        fields.append(filled)
    if any(each.problem for each in fields):
        return Read(tuple(fields), values)
    return checked(schema, Read(tuple(fields), values))


def _untouched(field: Field, was: Mapping[str, Any]) -> bool:
    return _lines(field.value) == (_lines(_written(field, was[field.name])) if field.name in was else "")


def _told(field: Field, was: Mapping[str, Any]) -> Field:
    """The field with what its text alone does not say of its value."""
    here = field.name in was
    return replace(
        field, null=here and was[field.name] is None, blank=here and not field.value.strip() and not field.required
    )


def _lines(text: str) -> str:
    """The text as a browser sends it back."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def checked(schema: Mapping[str, Any], found: Read) -> Read:
    """The arguments with what a schema says against them; nothing where it cannot be read (:func:`readable`)."""
    problems: dict[str, str] = {}
    with contextlib.suppress(Exception):  # a schema of a client may be anything
        for path, said in _errors(schema, found.values):
            problems.setdefault(path, said[:LONGEST_PROBLEM])
    fields = tuple(replace(each, problem=problems.pop(each.name, "")) for each in found.fields)
    return replace(found, fields=fields, problem=next(iter(problems.values()), ""))


def readable(schema: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether values can be held to a schema; some references are looked up only where an argument is there."""
    try:
        _validator(schema).check_schema(dict(schema))
        list(_errors(schema, values))
    except Exception:  # whatever a client sent as one
        return False
    return True


def _errors(schema: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The argument that is wrong, empty where it is none of them, and why."""
    from referencing import Registry

    for error in _validator(schema)(dict(schema), registry=Registry()).iter_errors(dict(values)):
        path = [str(each) for each in error.absolute_path]
        inside = f" (in {'.'.join(path[1:])})" if len(path) > 1 else ""
        yield (path[0] if path else ""), f"{error.message}{inside}"


def _validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator, validators

    base = validators.validator_for(dict(schema), default=Draft202012Validator)
    left = MOST_REFERENCES

    def counted(validator: Any, rule: Any, instance: Any, schema: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("too many references")
        yield from base.VALIDATORS["$ref"](validator, rule, instance, schema) or ()

    def unless_patterns(validator: Any, rule: Any, instance: Any, schema: Any) -> Any:
        if "patternProperties" not in schema:
            yield from base.VALIDATORS["additionalProperties"](validator, rule, instance, schema) or ()

    skipped = dict.fromkeys(("pattern", "patternProperties", "unevaluatedProperties", "$dynamicRef"), _nothing)
    return validators.extend(base, {**skipped, "$ref": counted, "additionalProperties": unless_patterns})


def _nothing(*_: Any) -> Iterator[Any]:
    return iter(())


def _fields(schema: Mapping[str, Any], also: Mapping[str, Any]) -> Iterator[Field]:
    properties, required = schema.get("properties"), schema.get("required")
    known = properties if isinstance(properties, Mapping) else {}
    needed = required if isinstance(required, list | tuple) else ()
    for name, rule in known.items():
        yield _field(str(name), rule if isinstance(rule, Mapping) else {}, name in needed)
    for name in also:
        if name not in known:
            yield Field(name=name, kind="json", about="not in the schema")


def _field(name: str, rule: Mapping[str, Any], required: bool) -> Field:
    kind, choices = rule.get("type"), rule.get("enum")
    if kind == "boolean":
        choices = [True, False]
    made = Field(name=name, kind="json", required=required, about=str(rule.get("description") or ""))
    if isinstance(choices, list | tuple) and choices:
        options = tuple((as_text(each), each if isinstance(each, str) else as_text(each)) for each in choices)
        return replace(made, kind="choice", choices=options)
    if kind == "string":
        return replace(made, kind="text")
    return replace(made, kind=kind) if kind in ("integer", "number") else made


def as_text(value: Any) -> str:
    """A value as JSON."""
    return as_json(value) if isinstance(value, Mapping) else json.dumps(value, ensure_ascii=False)


def _written(field: Field, value: Any) -> str:
    return value if isinstance(value, str) and field.kind in ("text", "number", "integer") else as_text(value)


def _value(field: Field) -> Any:
    """The value that a field's text stands for.

    Raises:
        ValueError: It stands for none; says what to write.
    """
    if field.kind == "text":
        return field.value
    if field.kind in ("number", "integer"):
        try:
            return _number(field.value.strip())
        except ValueError:
            raise ValueError(f"Write a {'whole ' * (field.kind == 'integer')}number.") from None
    try:
        return parsed(field.value)
    except ValueError:
        raise ValueError('This is not JSON: write a value such as "text", 3, true, [1, 2] or {"a": 1}.') from None


def parsed(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is none, or one that no text holds.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return value


def _number(text: str) -> int | float:
    if "_" in text:  # which Python takes within a number, and nobody else
        raise ValueError(text)
    try:
        return int(text)
    except ValueError:
        pass
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(text)
    return int(found) if found.is_integer() and abs(found) < 2**53 else found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no value of JSON")
