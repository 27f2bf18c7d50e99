"""Secrets in examples: the step between a source and everything that trains on, exports or caches its examples."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
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
        kinds.update({secret.kind for each in found.values() for secret in each})
        if found and policy == "quarantine":
            aside.append(Quarantined(_name(example, number), _reason(example, found)))
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


def _found(example: Example, emails: bool) -> dict[str, tuple[Secret, ...]]:
    """The secrets by the place that they are in; a place without one is absent."""
    found = {name: secrets.find(text, emails) for name, text in _texts(example)}
    return {name: each for name, each in found.items() if each}


def _texts(example: Example) -> Iterator[tuple[str, str]]:
    """Every text of an example behind the name of its place."""
    if example.is_one_turn:
        yield from (("instruction", example.instruction), ("input", example.input), ("output", example.output))
    else:
        for number, message in enumerate(example.messages, 1):
            yield f"message {number}", _said(message)
    if example.rejected is not None:
        yield "rejected", _said(example.rejected)


def _said(message: Message) -> str:
    """The text of a message with the arguments of its calls."""
    return "\n".join(
        [message.text, *(json.dumps(dict(call.arguments), ensure_ascii=False) for call in message.tool_calls)]
    )


def _masked(example: Example, emails: bool) -> Example:
    worse = example.rejected and _masked_message(example.rejected, emails)
    return replace(example, messages=tuple(_masked_message(each, emails) for each in example.messages), rejected=worse)


def _masked_message(message: Message, emails: bool) -> Message:
    calls = tuple(replace(call, arguments=_masked_value(dict(call.arguments), emails)) for call in message.tool_calls)
    return replace(message, parts=_masked_value(message.parts, emails), tool_calls=calls)


def _masked_value(value: Any, emails: bool) -> Any:
    if isinstance(value, str):
        return secrets.mask(value, secrets.find(value, emails))
    if isinstance(value, Mapping):
        return {key: _masked_value(each, emails) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_masked_value(each, emails) for each in value)
    return value


def _reason(example: Example, found: Mapping[str, tuple[Secret, ...]]) -> str:
    texts = dict(_texts(example))
    told = (f"{secrets.describe(texts[name], each)} of the {name}" for name, each in found.items())
    return f"holds secrets: {', '.join(told)} (source.secrets=mask masks them)"


def _name(example: Example, number: int) -> str:
    provenance = example.provenance
    place = provenance.session_id or provenance.image_path
    return place or f"{provenance.source} example {number if provenance.index is None else provenance.index}"
