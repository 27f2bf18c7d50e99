"""The layout of a session log, ``<folder>/<id>/session.json``, and its reader."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from loraloop.records import Quarantined

Agent = Literal["validator", "actor", "coordinator", "recovery"]
Rating = Annotated[int, Field(ge=1, le=5)]
NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

MAX_BYTES = 16 * 2**20
_SHOWN_ERRORS = 3


class _Logged(BaseModel):
    """Strict on types; fields that other loggers add are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class ToolCall(_Logged):
    """One call of a tool.

    Attributes:
        confidence: Of the reading or of the choice, 0..100.
        error: What the tool reported when it failed.
        alternatives: Calls that the agent considered and did not make, best first.
    """

    name: NonEmpty = Field(validation_alias=AliasChoices("name", "tool"))
    arguments: dict[str, JsonValue] = Field(default_factory=dict, validation_alias=AliasChoices("arguments", "args"))
    confidence: Annotated[float, Field(ge=0, le=100)] | None = None
    seconds: Seconds | None = None
    error: str | None = None
    alternatives: tuple[ToolCall, ...] | None = None


class Iteration(_Logged):
    """What the screen showed, and the calls that were chosen on it."""

    tool_calls: tuple[ToolCall, ...] | None = None
    screenshot_summary: str | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, none if the log has none."""
        return self.tool_calls or ()


class Session(_Logged):
    """One session as logged; only ``task`` is required.

    Attributes:
        instruction: What the system was told before the task, where a server kept it.
        answer: The text or plan that the agent gave, where the calls are not the answer.
        correction: The answer that a person wrote instead on review.
        duration: Seconds.
    """

    task: NonEmpty
    instruction: str = ""
    iterations: tuple[Iteration, ...] | None = None
    user_rating: Rating | None = None
    feedback_comment: str | None = None
    what_went_wrong: tuple[str, ...] | None = None
    lora_version: str | int | None = None
    success: bool | None = None
    duration: Seconds | None = None
    agent: Agent | None = None
    answer: str | None = None
    correction: str | None = None
    created: datetime | None = None

    @property
    def steps(self) -> tuple[Iteration, ...]:
        """The iterations, none if the log has none."""
        return self.iterations or ()

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of all iterations in order."""
        return tuple(call for step in self.steps for call in step.calls)

    @property
    def issues(self) -> tuple[str, ...]:
        """What went wrong, as the person put it."""
        return self.what_went_wrong or ()


def read(folder: Path) -> tuple[dict[str, Session], list[Quarantined]]:
    """Read every session under ``folder``, in the order of their ids; a broken one is set aside, never fatal."""
    sessions: dict[str, Session] = {}
    quarantined: list[Quarantined] = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith(".") or not place.is_dir():
            continue
        # A folder name need not be UTF-8, an exported session id must.
        name = os.fsencode(place.name).decode("utf-8", "backslashreplace")
        try:
            sessions[name] = _parse(place / "session.json")
        except (OSError, ValueError) as error:
            quarantined.append(Quarantined(name, problem(error)))
    return sessions, quarantined


def _parse(file: Path) -> Session:
    size = file.stat().st_size
    if size == 0:
        raise ValueError("session.json is empty (0 bytes)")
    if size > MAX_BYTES:
        raise ValueError(f"session.json has {size} bytes, more than {MAX_BYTES}")
    return Session.model_validate_json(file.read_bytes().decode("utf-8-sig"))


def problem(error: Exception) -> str:
    """Why a session cannot be used, in words."""
    match error:
        case FileNotFoundError():
            return "there is no session.json"
        case OSError():
            return f"session.json cannot be read: {error.strerror}"
        case UnicodeDecodeError():
            return f"session.json is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        case ValidationError():
            return _problems(error)
        case _:
            return str(error)


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    if found[0]["type"] == "json_invalid":
        return f"session.json is not JSON: {found[0]['msg'].removeprefix('Invalid JSON: ')}"
    texts = [_field(".".join(map(str, one["loc"])), one["msg"], one["input"]) for one in found[:_SHOWN_ERRORS]]
    more = len(found) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def _field(field: str, message: str, value: object) -> str:
    shown = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return f"{field or 'session.json'}: {message}, not {shown[:60]}"
