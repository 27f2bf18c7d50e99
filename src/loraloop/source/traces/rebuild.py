"""Conversations over several calls: calls that leave their past out get it, and calls that repeat it are joined."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from loraloop.records import Message, Trace


@dataclass(frozen=True, slots=True)
class ToolRun:
    """A tool that was carried out, as its own span tells it.

    Attributes:
        call: Id of the call that it answers; empty where the span does not say.
    """

    name: str
    call: str
    result: str


def rebuilt(calls: Sequence[Trace], tools: Sequence[ToolRun]) -> Iterator[tuple[Trace, bool]]:
    """The calls of one conversation, each with its whole past; and whether something had to be put in.

    A call continues the one before it where it begins with a tool's result, asks nothing, or, in a conversation that
    the log names, says nothing but what the user said since. Results that no message holds are those of tool spans.

    Args:
        calls: In their order.
        tools: In their order.
    """
    waiting = list(tools)
    state: tuple[Message, ...] = ()
    for call in calls:
        past = call.messages[:-1]
        whole = _joined(state, past) if state and _continues(state, past, named=call.named) else past
        whole = _with_results(whole, waiting)
        made = replace(call, messages=(*whole, call.messages[-1]))
        state = made.messages
        yield made, whole != past


def _continues(state: Sequence[Message], past: Sequence[Message], *, named: bool) -> bool:
    """Whether a call goes on where another one ended, and leaves out what was said before."""
    said = [message for message in past if message.role != "system"]
    told = [message for message in past if message.role == "system"]
    if told and told != [message for message in state if message.role == "system"][: len(told)]:
        return False
    if not said or said[0].role == "tool":
        return True
    return named and all(message.role == "user" for message in said) and not _same(said, state)


def _same(said: Sequence[Message], state: Sequence[Message]) -> bool:
    """Whether messages are the beginning of a conversation: then the call asks again."""
    spoken = [message for message in state if message.role != "system"]
    return [_key(each) for each in spoken[: len(said)]] == [_key(each) for each in said]


def _joined(state: tuple[Message, ...], past: tuple[Message, ...]) -> tuple[Message, ...]:
    return (*state, *(message for message in past if message.role != "system"))


def _with_results(past: Sequence[Message], waiting: list[ToolRun]) -> tuple[Message, ...]:
    """The messages with the results of tool spans behind calls that have none, and in results without a text."""
    made: list[Message] = []
    for nth, message in enumerate(past):
        if message.role == "tool" and not message.text and (run := _taken(waiting, message.tool_call_id, message.name)):
            message = replace(message, parts=(run.result,))
        made.append(message)
        following = past[nth + 1].role if nth + 1 < len(past) else ""
        if message.tool_calls and following != "tool":
            for call in message.tool_calls:
                if run := _taken(waiting, call.id, call.name):
                    made.append(Message("tool", (run.result,), tool_call_id=call.id, name=call.name))
    return tuple(made)


def _taken(waiting: list[ToolRun], call: str, name: str) -> ToolRun | None:
    """The run that answers a call: by its id, else the first of its name without one."""
    by_id = (run for run in waiting if call and run.call == call)
    by_name = (run for run in waiting if not (run.call and call) and run.name == name)
    return next(by_id, None) or next(by_name, None)


def joined(calls: Sequence[Trace], counts: Counter[str]) -> list[Trace]:
    """The conversations of calls: one that another goes on from is part of it, unless it was judged by itself.

    Args:
        calls: Of all conversations; calls of one group belong together.
        counts: ``twice`` for calls with an id that was there before, ``joined`` for parts of longer conversations.
    """
    by_id: dict[str, Trace] = {}
    for call in calls:
        counts["twice"] += call.id in by_id
        by_id.setdefault(call.id, call)
    prefixes = {(call.group, key) for call in by_id.values() for key in list(_prefixes(call))[:-1]}
    made = []
    for call in by_id.values():
        *_, own = _prefixes(call)
        if (call.group, own) in prefixes and not call.assessments:
            counts["joined"] += 1
        else:
            made.append(call)
    return made


def _prefixes(call: Trace) -> Iterator[bytes]:
    """A hash of the conversation up to each message."""
    digest = hashlib.sha256(b"raw" if call.raw else b"")
    for message in call.messages:
        digest.update(_key(message).encode("utf-8", "surrogatepass"))
        yield digest.digest()


def _key(message: Message) -> str:
    """What two copies of a message share, whatever ids its calls have."""
    calls = [(call.name, call.arguments) for call in message.tool_calls]
    return json.dumps([message.role, message.text.strip(), calls], sort_keys=True, default=str)
