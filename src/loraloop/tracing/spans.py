"""A served answer as one span, in the attributes of OpenTelemetry's conventions for generative AI.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (release 1.38 and later)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from loraloop.core.conversations import scoped
from loraloop.core.durations import moment
from loraloop.records import Session
from loraloop.tracing import chat

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

PROVIDER = "loraloop"
FAILED = ("error", "timeout")
"""A client that left says nothing about the answer."""


def trace_id(session: str) -> int:
    """The id of a session's trace: always the same one, so that an answer that is sent twice is one trace."""
    return int.from_bytes(hashlib.sha256(session.encode("utf8", "replace")).digest()[:16], "big") or 1


def operation(session: Session) -> str:
    """What was asked for, as the conventions call it."""
    return "text_completion" if isinstance(session.prompt, str) else "chat"


def common(session: Session) -> dict[str, Any]:
    """What is known of the answer but for its texts; what is not known is left out."""
    talk = scoped(session.conversation or session.conversation_id, session.asked_key)
    found = {
        "gen_ai.operation.name": operation(session),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": session.asked,
        "gen_ai.response.model": session.answered,
        "gen_ai.response.id": session.id,
        "gen_ai.agent.name": session.role,
        "gen_ai.conversation.id": talk,
        "gen_ai.usage.input_tokens": session.prompt_tokens,
        "gen_ai.usage.output_tokens": session.completion_tokens,
        "session.id": talk or session.id,
        "user.id": session.client,
        "error.type": session.status if session.status in FAILED else None,
        **{f"loraloop.{name}": value for name, value in tags(session).items()},
        "loraloop.first_token_seconds": session.first_token,
    }
    return {name: value for name, value in found.items() if value is not None}


def tags(session: Session) -> dict[str, str]:
    """What traces are searched by."""
    found = {
        "session": session.id,
        "version": session.answered,
        "role": session.role,
        "status": session.status,
        "client": session.client,
        "key": session.asked_key,
        "rollout": session.rollout,
        "retries": session.retries or None,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def texts(session: Session) -> dict[str, str]:
    """The messages, and the tools that were offered, as the conventions write them."""
    output = chat.in_parts(chat.answered(session)) | {"finish_reason": chat.finish(session)}
    found = {
        "gen_ai.input.messages": [chat.in_parts(each) for each in chat.asked(session)],
        "gen_ai.output.messages": [output],
        "gen_ai.tool.definitions": session.tools,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in found.items() if value}


def span(session: Session, attributes: Mapping[str, Any], resource: Resource) -> ReadableSpan:
    """The whole of a session as a span without a parent.

    Args:
        session: What was served; one without a time is taken for one of 1970.
        attributes: Of the span.
        resource: What served it.
    """
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    began = moment(session.time or "1970-01-01")
    start = round(began.timestamp() * 1e3) * 1_000_000
    identity = trace_id(session.id)
    failed = session.status in FAILED
    return ReadableSpan(
        name=f"{operation(session)} {session.answered or session.asked or ''}".strip(),
        context=SpanContext(identity, identity & (2**64 - 1) or 1, False, TraceFlags(TraceFlags.SAMPLED)),
        resource=resource,
        attributes=attributes,
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, session.status) if failed else Status(StatusCode.OK),
        start_time=start,
        end_time=start + round(timedelta(seconds=session.duration or 0) / timedelta(microseconds=1)) * 1_000,
    )
