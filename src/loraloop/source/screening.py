"""Secrets in examples: the step between a source and everything that trains on, exports or caches its examples."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from loraloop.core import secrets
from loraloop.core.progress import track
from loraloop.core.secrets import Secret
from loraloop.protocols import Ocr, Source
from loraloop.records import Collection, Example, Message, Quarantined
from loraloop.source import own

Policy = Literal["quarantine", "mask", "warn", "keep"]
"""What becomes of an example with a secret: ``quarantine`` sets it aside, ``mask`` puts the kind in the place of the
secret, ``warn`` keeps and counts it, ``keep`` does not look."""

Found = tuple[str, str, tuple[Secret, ...]]
"""The place of a text, the text, and the secrets in it."""

_log = logging.getLogger(__name__)


def collect(source: Source, ocr: Ocr | None) -> Collection:
    """The examples of a source, screened as its ``secrets`` says, or ``warn`` where it has no such field.

    A source whose class says ``SCREENED`` looks at what it reads itself, or makes everything up.
    """
    found = own.collect(source, ocr)
    if getattr(source, "SCREENED", False):
        return found
    return screen(found, getattr(source, "secrets", "warn"), emails=getattr(source, "emails", False))


def screen(collection: Collection, policy: Policy, *, emails: bool = False) -> Collection:
    """Examples without secrets, or with a warning about them; what is set aside is told by kind, never by value.

    Args:
        collection: Of one source.
        policy: What becomes of an example with a secret.
        emails: Whether e-mail addresses are secrets.
    """
    if policy == "keep" or not collection.examples:
        return collection
    kept: list[Example] = []
    aside: list[Quarantined] = []
    kinds: Counter[str] = Counter()
    examples = track(collection.examples, "looking for secrets", "example", len(collection.examples))
    for number, example in enumerate(examples, 1):
        found = _found(example, emails)
        kinds.update({secret.kind for _, _, each in found for secret in each})
        if found and policy == "quarantine":
            aside.append(Quarantined(_name(example, number), _reason(found)))
        else:
            kept.append(_masked(example, emails) if found and policy == "mask" else example)
    if kinds and policy == "warn":
        told = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
        _log.warning(
            "examples with secrets are trained on: %s. source.secrets=quarantine sets them aside, mask masks the "
            "secrets, keep does not look",
            told,
        )
    return Collection(tuple(kept), (*collection.quarantined, *aside))


def _found(example: Example, emails: bool) -> list[Found]:
    """The texts that hold secrets."""
    found = ((place, text, secrets.find(text, emails)) for place, text in _texts(example))
    return [each for each in found if each[2]]


def _texts(example: Example) -> Iterator[tuple[str, str]]:
    """Every text of an example behind the name of its place."""
    if example.is_one_turn:
        yield from (("instruction", example.instruction), ("input", example.input), ("output", example.output))
    else:
        for number, message in enumerate(example.messages, 1):
            yield from ((f"message {number}", text) for text in _said(message))
    if example.rejected is not None:
        yield from (("rejected", text) for text in _said(example.rejected))


def _said(message: Message) -> Iterator[str]:
    """The text of a message and of its calls' arguments; masking looks at the same ones."""
    yield message.text
    for call in message.tool_calls:
        yield from _argument("", dict(call.arguments))


def _argument(name: str, value: Any) -> Iterator[str]:
    """The texts in a value that its name stands before; the name alone may tell that it is a secret."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _argument(str(key), each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _argument(name, each)
    elif _may_be_secret(value):
        yield f"{name}: {value}"


def _may_be_secret(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _masked(example: Example, emails: bool) -> Example:
    worse = example.rejected and _masked_message(example.rejected, emails)
    return replace(example, messages=tuple(_masked_message(each, emails) for each in example.messages), rejected=worse)


def _masked_message(message: Message, emails: bool) -> Message:
    calls = tuple(
        replace(call, arguments=_masked_argument("", dict(call.arguments), emails)) for call in message.tool_calls
    )
    parts = tuple(secrets.mask(part, secrets.find(part, emails)) for part in message.parts)
    return replace(message, parts=parts, tool_calls=calls)


def _masked_argument(name: str, value: Any, emails: bool) -> Any:
    """The value without what is found in the texts of :func:`_argument`; a number that is a secret becomes text.

    A value that only its name betrays is a secret as a whole.
    """
    if isinstance(value, Mapping):
        return {
            secrets.mask(str(key), secrets.find(str(key), emails)): _masked_argument(str(key), each, emails)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_masked_argument(name, each, emails) for each in value)
    if not _may_be_secret(value):
        return value
    before = len(f"{name}: ")
    found = [
        replace(secret, start=max(0, secret.start - before), end=secret.end - before)
        for secret in secrets.find(f"{name}: {value}", emails)
        if secret.end > before
    ]
    if found and not secrets.find(str(value), emails):
        return f"[{found[0].kind}]"
    return secrets.mask(str(value), found) if found else value


def _reason(found: Iterable[Found]) -> str:
    told = dict.fromkeys(f"{secrets.describe(text, each)} of the {place}" for place, text, each in found)
    return f"holds secrets: {', '.join(told)} (source.secrets=mask masks them)"


def _name(example: Example, number: int) -> str:
    provenance = example.provenance
    place = provenance.session_id or provenance.image_path
    return place or f"{provenance.source} example {number if provenance.index is None else provenance.index}"
