"""What an imported session recorded: screens, and the tool calls that were chosen on them."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from loraloop.core.session_file import problem
from loraloop.records import Agent, Session

NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Recorded(BaseModel):
    """Strict on types; fields that other loggers add are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class ToolCall(_Recorded):
    """One call of a tool.

    Attributes:
        confidence: Of the reading or of the choice, 0..100.
        error: What the tool reported when it failed.
        alternatives: Calls that the agent considered and did not make, best first.
    """

    name: NonEmpty = Field(validation_alias=AliasChoices("name", "tool"))
    arguments: dict[str, JsonValue] = Field(default_factory=dict, validation_alias=AliasChoices("arguments", "args"))
    confidence: Annotated[float, Field(ge=0, le=100)] | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    error: str | None = None
    alternatives: tuple[ToolCall, ...] | None = None


class Iteration(_Recorded):
    """What the screen showed, and the calls that were chosen on it."""

    tool_calls: tuple[ToolCall, ...] | None = None
    screenshot_summary: str | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, none if the log has none."""
        return self.tool_calls or ()


class _Recording(_Recorded):
    agent: Agent | None
    iterations: tuple[Iteration, ...] | None


def fault(session: Session) -> str | None:
    """Why nothing can be made of what a session recorded, if so: its agent is unknown, or a call is malformed."""
    try:
        _parse(session)
    except ValidationError as error:
        return problem(error)
    return None


def steps(session: Session) -> tuple[Iteration, ...]:
    """The iterations of a session without a :func:`fault`; none if it has none."""
    return (session.iterations and _parse(session).iterations) or ()


def calls(session: Session) -> tuple[ToolCall, ...]:
    """The calls of all iterations in order."""
    return tuple(call for step in steps(session) for call in step.calls)


def _parse(session: Session) -> _Recording:
    recorded = {"agent": session.role, "iterations": session.iterations}
    return _Recording.model_validate_json(json.dumps(recorded))
