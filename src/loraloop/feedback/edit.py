"""A correction as a form edits it: its text, and each of its tool calls by the fields of its tool's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loraloop.core import tool_calls
from loraloop.core.messages import as_json
from loraloop.core.same_task import answer_key
from loraloop.feedback import arguments
from loraloop.feedback.arguments import Field, Read
from loraloop.feedback.ratings import LONGEST_CORRECTION, clean
from loraloop.records import Session

MOST_CALLS = 20
MARKED = "Text or an argument holds <tool_call> or </tool_call>, which mark calls: write it otherwise."
SAME = "That is the answer that was given: write another one, or reject."
Fields = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the form.

    Attributes:
        fields: Its arguments.
        values: What they stand for.
        was: The arguments that the form was first made of, which untouched fields keep; ``None`` for a new call.
        left_out: Whether it is to be removed.
        problem: What is wrong with it as a whole.
        hint: What a person should know of it.
    """

    name: str
    fields: tuple[Field, ...]
    values: Mapping[str, object]
    was: Mapping[str, object] | None = None
    left_out: bool = False
    problem: str = ""
    hint: str = ""

    @property
    def carried(self) -> str:
        """``was`` as the form carries it along; empty where there is none, or where no text holds it."""
        text = "" if self.was is None else as_json(self.was)
        return text if _was(text) is not None else ""

    @property
    def problems(self) -> list[str]:
        """Why it can not be kept as it is; none where it is left out."""
        beside = [f"{each.name}: {each.problem}" for each in self.fields if each.problem]
        return [] if self.left_out else [self.problem] * bool(self.problem) + beside

    @property
    def wrong(self) -> bool:
        """Whether it can not be kept as it is."""
        return bool(self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What the form holds.

    Attributes:
        tools: Names of the tools that may be called.
        moved: Whether a call was given another tool, or one was added, so that a person has to see its fields first.
    """

    text: str
    calls: tuple[Call, ...] = ()
    tools: tuple[str, ...] = ()
    moved: bool = False

    @property
    def problem(self) -> str:
        """What keeps it from being a correction; empty where nothing does."""
        if any(each.wrong for each in self.calls):
            return "Something does not fit: see beside the fields."
        if self.moved:
            return "A call has other fields now: look at them, then save."
        if not self.whole:
            return "The correction is empty: write one, or reject."
        if self._marked:
            return MARKED
        return f"It is longer than {LONGEST_CORRECTION} characters." if len(self.whole) > LONGEST_CORRECTION else ""

    @property
    def misfit(self) -> str:
        """Why its calls are no calls of its tools, for somebody who sees no fields; empty where they are.

        It holds for a correction that nobody wrote here too, which may be longer than people write.
        """
        found = [f"call {at} ({each.name}): {said}" for at, each in enumerate(self.calls, 1) for said in each.problems]
        return "; ".join(found) or MARKED * self._marked

    @property
    def whole(self) -> str:
        """The correction, with each call in tags as templates write them."""
        calls = [
            f'<tool_call>{{"name": {arguments.as_text(each.name)}, "arguments": {as_json(each.values)}}}</tool_call>'
            for each in self._kept
        ]
        return clean("\n".join([self.text, *calls]))

    @property
    def written(self) -> list[object]:
        """What stands in the form, to tell whether somebody changed it."""
        calls = [
            (each.name, each.left_out, [(one.name, one.value, one.left_out) for one in each.fields])
            for each in self.calls
        ]
        return [clean(self.text), calls]

    @property
    def _marked(self) -> bool:
        """Whether something that is no call of the form would be read as one, or would break one."""
        offered = bool(self.tools)  # else tags are text, as the answer's client gets them
        read = tool_calls.given(self.whole, offered)[1]
        return len(read) != len(self._kept) or tool_calls.is_broken(self.whole, offered)

    @property
    def _kept(self) -> list[Call]:
        return [each for each in self.calls if not each.left_out]


def proposed(text: str, session: Session) -> Edit:
    """The form of a correction as it was proposed, with what the schemas of its tools say against it."""
    said, calls = tool_calls.given(text, bool(session.tools))
    schemas = tool_calls.parameters(session.tools or ())
    made = tuple(
        _call(
            each.name,
            arguments.checked(schema, Read(arguments.shown(schema, each.arguments), dict(each.arguments))),
            schemas,
            was=each.arguments,
        )
        for each in calls
        for schema in [_schema(schemas, each.name)]
    )
    return Edit(text=said, calls=made, tools=tuple(schemas))


def sent(fields: Fields, session: Session, *, add: bool = False) -> Edit:
    """What a person made of it.

    Args:
        fields: Of the form.
        session: Whose answer is corrected.
        add: Whether a call is added, of the first tool.
    """
    schemas = tool_calls.parameters(session.tools or ())
    calls, moved = [], add
    for at in range(MOST_CALLS):
        if (name := _one(fields, f"call.{at}.tool")) is None or not schemas:
            break
        before = _one(fields, f"call.{at}.before") or name
        given, was = _under(fields, f"call.{at}.arg."), _was(_one(fields, f"call.{at}.was"))
        if name != before:  # the other tool has arguments of its own; what both have is kept
            moved, was, known = True, None, {each.name for each in arguments.shown(_schema(schemas, name), {})}
            given = {key: value for key, value in given.items() if key in known or value.strip()}
        found = arguments.read(_schema(schemas, name), given, was, _under(fields, f"call.{at}.none."))
        left_out = _one(fields, f"call.{at}.out") is not None
        calls.append(_call(name, found, schemas, was=was, left_out=left_out))
    if add and schemas and len(calls) < MOST_CALLS:
        first = next(iter(schemas))
        calls.append(_call(first, Read(arguments.shown(schemas[first], {})), schemas))
    return Edit(text=clean(_one(fields, "text") or ""), calls=tuple(calls), tools=tuple(schemas), moved=moved)


def refused(made: Edit, session: Session) -> str:
    """Why what a person made of a correction is not taken; empty where it is."""
    return made.problem or (SAME if answer_key(made.whole) == answer_key(session.answer or "") else "")


def as_written(fields: Fields) -> str:
    """What stands in the form, whether or not it is a correction: text, then each call with what its fields hold."""
    lines = [clean(_one(fields, "text") or "")]
    for at in range(MOST_CALLS):
        if (name := _one(fields, f"call.{at}.tool")) is None:
            break
        lines += [
            f"calls {name}",
            *(f"  {key}: {value}" for key, value in _under(fields, f"call.{at}.arg.").items() if value.strip()),
        ]
    return "\n".join(each for each in lines if each)


def _call(
    name: str,
    found: Read,
    schemas: Mapping[str, Mapping[str, object]],
    *,
    was: Mapping[str, object] | None = None,
    left_out: bool = False,
) -> Call:
    known = name in schemas
    hint = arguments.NO_SCHEMA if known and not arguments.readable(schemas[name], found.values) else ""
    problem = found.problem if known else f"No tool is called {name}."
    return Call(
        name=name, fields=found.fields, values=found.values, was=was, left_out=left_out, problem=problem, hint=hint
    )


def _schema(schemas: Mapping[str, Mapping[str, object]], name: str) -> Mapping[str, object]:
    return schemas.get(name, {})


def _was(text: str | None) -> Mapping[str, object] | None:
    """The arguments that the form was made of; ``None`` where it does not say them."""
    try:
        found = arguments.parsed(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _under(fields: Fields, start: str) -> dict[str, str]:
    """The fields whose names begin so, by the rest of their names."""
    return {key.removeprefix(start): values[0] for key, values in fields.items() if key.startswith(start)}


def _one(fields: Fields, name: str) -> str | None:
    return fields[name][0] if name in fields else None
