"""``<folder>/<id>/session.json``: sessions out of the store and into it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from loraloop.core import atomic
from loraloop.errors import DataError
from loraloop.feedback.logged import Logged
from loraloop.feedback.ratings import ISSUES, Rating
from loraloop.feedback.store import Store, stamp
from loraloop.records import Quarantined

AGENTS = frozenset({"validator", "actor", "coordinator", "recovery"})
"""Roles that a session log may name."""
LARGEST = 16 * 2**20
"""Bytes of one file."""


def _key(label: str) -> str:
    return re.sub(r"[\W_]+", " ", label).strip().casefold()


_WORDS = {_key(label): word for word, label in ISSUES.items()}


Stamp = Annotated[str, AfterValidator(stamp)]
Label = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00]+$")]


class Document(BaseModel):
    """What of a ``session.json`` is kept."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    instruction: str | None = None
    agent: str | None = None
    answer: str | None = None
    iterations: list[JsonValue] | None = None
    user_rating: Annotated[int, Field(ge=1, le=5, strict=True)] | None = None
    feedback_comment: str | None = None
    what_went_wrong: list[str] | None = None
    correction: str | None = None
    lora_version: str | int | None = None
    success: bool | None = None
    duration: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    created: Stamp | None = None
    rated: Stamp | None = None
    conversation: Label | None = None
    client: Label | None = None
    rollout: Label | None = None

    def logged(self, session: str) -> Logged:
        """The session of that id."""
        rating = None
        if self.user_rating is not None:
            issues = tuple(_WORDS.get(_key(each), each) for each in self.what_went_wrong or ())
            rating = Rating(stars=self.user_rating, comment=self.feedback_comment or "", issues=issues)
        version = None if self.lora_version is None else str(self.lora_version)
        return Logged(
            id=session,
            time=self.created,
            asked=version,
            answered=version,
            role=self.agent,
            prompt=self._prompt,
            answer=self.answer,
            iterations=self.iterations,
            status={True: "ok", False: "error", None: None}[self.success],
            duration=self.duration,
            conversation=self.conversation,
            client=self.client,
            rollout=self.rollout,
            rated=self.rated,
            rating=rating,
            correction=self.correction,
        )

    @property
    def _prompt(self) -> str | list[dict[str, str]]:
        if not self.instruction:
            return self.task
        return [{"role": "system", "content": self.instruction}, {"role": "user", "content": self.task}]


def document(logged: Logged) -> dict[str, Any]:
    """A session as its ``session.json`` says it; what people have not said is left out.

    Implied ratings stay in the store: ``user_rating`` is what a person gave.
    """
    rating = logged.rating
    told = "\n".join(text for role, text in logged.turns if role == "system")
    said = "\n".join(text for role, text in logged.turns if role != "system")
    values = {
        "agent": logged.role if logged.role in AGENTS else None,
        "task": said or told,
        "instruction": told if told and said else None,
        "iterations": logged.iterations,
        "answer": logged.answer,
        "user_rating": rating and rating.stars,
        "rated": logged.rated,
        "feedback_comment": rating and rating.comment,
        "what_went_wrong": rating and [ISSUES.get(issue, issue) for issue in rating.issues],
        "correction": logged.correction,
        "lora_version": logged.answered,
        "success": logged.success,
        "duration": logged.duration,
        "created": logged.time,
        "conversation": logged.conversation,
        "client": logged.client,
        "rollout": logged.rollout,
    }
    return {name: value for name, value in values.items() if value is not None}


def export(store: Store, folder: Path) -> tuple[int, list[Quarantined]]:
    """Write every session of the store below ``folder``, again if it is there; how many, and which could not be.

    Raises:
        DataError: A file cannot be written.
    """
    written, unusable = 0, []
    for logged in store.all():
        try:
            content = orjson.dumps(document(logged), option=orjson.OPT_INDENT_2)
        except TypeError as error:  # a lone surrogate
            unusable.append(Quarantined(logged.id, str(error)))
            continue
        try:
            with atomic.write(folder / logged.id / "session.json") as stream:
                stream.write(content + b"\n")
        except OSError as error:
            raise DataError(f"{folder / logged.id} cannot be written: {error.strerror}") from error
        written += 1
    return written, unusable


def take(store: Store, folder: Path) -> tuple[int, int, list[Quarantined]]:
    """Keep the sessions below ``folder`` in the store: how many are new, how many were there, and which are broken.

    Raises:
        DataError: There is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the one that holds ID/session.json")
    new, known, broken = 0, 0, []
    for name, found in _documents(folder):
        if isinstance(found, str):
            broken.append(Quarantined(name, found))
        elif store.insert(found.logged(name)):
            new += 1
        else:
            known += 1
    return new, known, broken


def _documents(folder: Path) -> Iterator[tuple[str, Document | str]]:
    for place in sorted(folder.iterdir()):
        if place.name.startswith(".") or not place.is_dir():
            continue
        file = place / "session.json"
        try:
            if file.stat().st_size > LARGEST:
                yield place.name, f"session.json is larger than {LARGEST} bytes"
                continue
            yield place.name, Document.model_validate_json(file.read_bytes().decode("utf-8-sig"))
        except OSError as error:
            yield place.name, f"session.json cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            yield place.name, "session.json is not UTF-8"
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            yield place.name, f"session.json: {'.'.join(map(str, first['loc']))} {first['msg']}".replace(":  ", ": ")
