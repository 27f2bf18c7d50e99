"""Logged conversations into the store of sessions: screened, each once, with what was said of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from loraloop.core import messages, secrets
from loraloop.core.progress import track
from loraloop.records import Assessment, Collection, Example, Message, Quarantined, Rating, Session, Trace
from loraloop.source import screening

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.source.traces import Traces


@dataclass
class Imported:
    """What became of a log.

    Attributes:
        told: What was recognised.
        counts: ``new`` sessions, those that were ``known``; of the new ones the ``rated``, those with a ``correction``,
            and assessments by ``human``, ``judge``, ``code`` and ``unknown``.
    """

    told: str
    counts: Counter[str] = field(default_factory=Counter)
    aside: tuple[Quarantined, ...] = ()


def bring(source: Traces, store: Store, role: str | None) -> Imported:
    """Keep the conversations of a log as sessions.

    Args:
        source: The log, and what becomes of secrets in it.
        store: Where they are kept.
        role: The agent role that they belong to; ``None`` for what the log says.

    Raises:
        DataError: The log holds no conversation.
        StoreError: A session could not be kept; those before it are.
    """
    from loraloop.source.traces.reading import example

    found = source.read()
    collection = Collection(tuple(map(example, found.traces)), tuple(found.aside))
    screened = screening.screen(collection, source.secrets, emails=source.emails)
    by_id = {trace.id: trace for trace in found.traces}
    made = Imported(found.line(), aside=screened.quarantined)
    for one in track(screened.examples, "importing", "conversation", len(screened.examples)):
        trace = _clean(by_id[str(one.provenance.session_id)], source)
        proposed = one.output if one.rejected is not None else ""
        if not store.insert(session(trace, one, role), proposed, trace.assessments):
            made.counts["known"] += 1
            continue
        made.counts.update(new=1, rated=trace.stars is not None, correction=bool(proposed))
        made.counts.update(each.source for each in trace.assessments)
    return made


def session(trace: Trace, example: Example, role: str | None) -> Session:
    """The session of a trace.

    It names no version that answered, so that no trigger or rollout counts it for one of this registry.

    Args:
        trace: Facts and rating.
        example: Its messages, screened.
        role: The agent role, where another one than the trace's.
    """
    *past, answer = example.messages
    rating = None if trace.stars is None else Rating(stars=trace.stars, comment=trace.comment)
    return Session(
        id=trace.id,
        prompt=past[0].text if trace.raw else [{**messages.write(each), "content": each.text} for each in past],
        tools=[dict(tool) for tool in example.tools] or None,
        time=trace.time,
        asked=trace.model,
        role=role or trace.role,
        answer=written(example.rejected or answer),
        status="ok",
        duration=trace.duration,
        prompt_tokens=trace.prompt_tokens,
        completion_tokens=trace.completion_tokens,
        conversation=trace.conversation,
        client=trace.client,
        rating=rating,
        rated=trace.rated,
        rated_key=None if rating is None else f"import:{trace.rated_by}",
    )


def written(answer: Message) -> str:
    """An answer as the server keeps one: its text, and its calls in ``<tool_call>`` tags."""
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in answer.tool_calls]
    told = [f"<tool_call>\n{messages.as_json(call)}\n</tool_call>" for call in calls]
    return "\n".join(filter(None, [answer.text, *told]))


def _clean(trace: Trace, source: Traces) -> Trace:
    """A trace whose comment and assessments hold no secret, unless secrets are kept."""
    if source.secrets in ("keep", "warn"):
        return trace

    def masked(text: str) -> str:
        return secrets.mask(text, secrets.find(text, source.emails))

    def said(each: Assessment) -> Assessment:
        value = masked(each.value) if isinstance(each.value, str) else each.value
        return replace(each, value=value, rationale=masked(each.rationale))

    return replace(trace, comment=masked(trace.comment), assessments=tuple(map(said, trace.assessments)))
