"""``<folder>/<id>/session.json``: the file of a session, written by ``stage=feedback`` and read for training."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from loraloop.core.durations import stamp
from loraloop.records import Quarantined, Rating, Session

ISSUES: Mapping[str, str] = {
    "ocr_confidence_low": "OCR confidence low",
    "wrong_action_selected": "Wrong action selected",
    "timeout": "Timeout",
    "minor_precision_issue": "Minor precision issue",
    "other": "Other",
}
"""What can go wrong: the word for programs, and the label that people read and ``session.json`` holds."""
SAME = (
    "tools", "iterations", "answer", "rated", "correction", "duration", "conversation", "client", "rollout",
    "asked_key", "rated_key",
)  # fmt: skip
"""Fields that the file and the record know by one name."""
UNLEARNED = frozenset({"rated", "conversation", "client", "rollout"})
"""Fields that training does not look at: what they hold costs no session."""
MAX_BYTES = 16 * 2**20
SHOWN_ERRORS = 3

Stamp = Annotated[str, AfterValidator(stamp)]
Label = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00]+$")]


class SessionFile(BaseModel):
    """The content of a ``session.json``; only ``task`` is required, and fields that other loggers add are ignored.

    Fields are in the order in which they are written.

    Attributes:
        instruction: What the system was told before the task.
        iterations: Screens and tool calls; what they may hold is checked where they are trained on.
        duration: Seconds.
        served: The messages or the text that a server was asked, where ``instruction`` and ``task`` cannot say it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    agent: str | None = None
    task: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    instruction: str | None = None
    tools: list[dict[str, JsonValue]] | None = None
    iterations: list[JsonValue] | None = None
    answer: str | None = None
    user_rating: Annotated[int, Field(ge=1, le=5)] | None = None
    rated: Stamp | None = None
    feedback_comment: str | None = None
    what_went_wrong: tuple[str, ...] | None = None
    correction: str | None = None
    lora_version: str | int | None = None
    success: bool | None = None
    duration: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    created: Stamp | None = None
    served: str | list[dict[str, JsonValue]] | None = None
    conversation: Label | None = None
    client: Label | None = None
    rollout: Label | None = None
    asked_key: Label | None = None
    rated_key: Label | None = None
    refused: tuple[str, ...] | None = None

    @classmethod
    def of(cls, session: Session) -> SessionFile:
        """The file of a session, as it stands in the store: nothing is checked.

        Implied stars stay in the store: ``user_rating`` is what a person gave.
        """
        rating = session.rating
        asked = cls.model_construct(task=session.task.strip(), instruction=session.instruction or None)
        return cls.model_construct(
            agent=session.agent,
            task=asked.task,
            instruction=asked.instruction,
            served=None if session.prompt == asked._prompt else session.prompt,
            user_rating=session.stars,
            feedback_comment=rating and rating.comment,
            what_went_wrong=rating and tuple(ISSUES.get(issue, issue) for issue in rating.issues),
            lora_version=session.answered,
            success=session.success,
            created=session.time,
            refused=session.refused or None,
            **{name: getattr(session, name) for name in SAME},
        )

    def encode(self) -> bytes:
        """The file's bytes; a field that says nothing is left out.

        Raises:
            TypeError: A text is no Unicode: it holds half of a surrogate pair.
        """
        values = {name: getattr(self, name) for name in SessionFile.model_fields}
        said = {name: value for name, value in values.items() if value is not None}
        return orjson.dumps(said, option=orjson.OPT_INDENT_2) + b"\n"

    def session(self, name: str) -> Session:
        """The session of this file, under the id ``name``."""
        version = None if self.lora_version is None else str(self.lora_version)
        return Session(
            id=name,
            prompt=self._prompt,
            time=self.created,
            asked=version,
            answered=version,
            role=self.agent,
            status={True: "ok", False: "error", None: None}[self.success],
            rating=self._rating,
            refused=self.refused or (),
            **{name: getattr(self, name) for name in SAME},
        )

    @property
    def _prompt(self) -> Any:
        if self.served is not None:
            return self.served
        if not self.instruction:
            return [{"role": "user", "content": self.task}]
        return [{"role": "system", "content": self.instruction}, {"role": "user", "content": self.task}]

    @property
    def _rating(self) -> Rating | None:
        if self.user_rating is None:
            return None
        issues = tuple(issue_word(issue) for issue in self.what_went_wrong or ())
        return Rating(stars=self.user_rating, comment=self.feedback_comment or "", issues=issues)


def issue_word(issue: str) -> str:
    """The word of :data:`ISSUES` for an issue, however it is written; an unknown one stays as it is."""
    return _WORDS.get(_letters(issue), issue)


def _letters(issue: str) -> str:
    return re.sub(r"[\W_]+", " ", issue).strip().casefold()


_WORDS = {_letters(label): word for word, label in ISSUES.items()}


def parse(content: bytes, ignored: Set[str] = frozenset()) -> SessionFile:
    """The file with this content.

    Args:
        content: Of ``session.json``.
        ignored: Fields whose invalid values are left out.

    Raises:
        ValueError: It is no session; :func:`problem` says why.
    """
    text = content.decode("utf-8-sig")
    try:
        return SessionFile.model_validate_json(text)
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        if not wrong or not wrong <= ignored:
            raise
        values = {name: value for name, value in json.loads(text).items() if name not in wrong}
        return SessionFile.model_validate_json(json.dumps(values))


def read(folder: Path, ignored: Set[str] = frozenset()) -> Iterator[Session | Quarantined]:
    """Every session under ``folder``, in the order of their ids; a broken one is set aside, never fatal.

    Args:
        folder: Holds ``<id>/session.json``.
        ignored: See :func:`parse`.
    """
    for place in sorted(folder.iterdir()):
        if place.name.startswith(".") or not place.is_dir():
            continue
        # A folder name need not be UTF-8, the id of a session must.
        name = os.fsencode(place.name).decode("utf-8", "backslashreplace")
        try:
            yield parse(_content(place / "session.json"), ignored).session(name)
        except (OSError, ValueError) as error:
            yield Quarantined(name, problem(error))


def _content(file: Path) -> bytes:
    size = file.stat().st_size
    if size == 0:
        raise ValueError("session.json is empty (0 bytes)")
    if size > MAX_BYTES:
        raise ValueError(f"session.json has {size} bytes, more than {MAX_BYTES}")
    return file.read_bytes()


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
    texts = [_field(".".join(map(str, one["loc"])), one["msg"], one["input"]) for one in found[:SHOWN_ERRORS]]
    more = len(found) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def _field(field: str, message: str, value: Any) -> str:
    shown = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return f"{field or 'session.json'}: {message.removeprefix('Value error, ')}, not {shown[:60]}"
