"""Conversations whose turns do not fit together: put right where that is certain, refused with the reason elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from loraloop.records import Message, ToolCall

MOST_TURNS = 1_000
"""Messages of a conversation; no context window holds more of them than that."""
LONGEST = 500_000
"""Characters of a message."""

Numbered = tuple[int, Message]
"""A message behind its place in the row, from 1."""


def mend(messages: Sequence[Message], repaired: Counter[str], *, last_is_judged: bool) -> tuple[Message, ...]:
    """The conversation with its turns in order.

    Args:
        messages: As the row says them.
        repaired: What is put right is counted here.
        last_is_judged: Whether the row rates its last answer, or sets a worse one beside it: then it must be there.

    Raises:
        ValueError: It cannot be put right with certainty.
    """
    if len(messages) > MOST_TURNS:
        raise ValueError(f"{len(messages):,} messages, more than {MOST_TURNS:,}: split the conversation")
    for number, message in enumerate(messages, 1):
        if (length := sum(map(len, message.parts))) > LONGEST:
            raise ValueError(f"message {number} has {length:,} characters, more than {LONGEST:,}: split or shorten it")
    turns = _merged(list(enumerate(messages, 1)), repaired)
    _end_with_an_answer(turns, repaired, last_is_judged)
    return tuple(_answered(turns, repaired))


def says(message: Message) -> bool:
    """Whether a message holds a word or a call."""
    return bool(message.text.strip() or message.tool_calls)


def _merged(turns: list[Numbered], repaired: Counter[str]) -> list[Numbered]:
    """Turns of one speaker that follow each other as one, where nothing but their order can be meant."""
    made: list[Numbered] = []
    for number, message in turns:
        if message.role == "system" and not says(message):
            repaired["empty system messages were left out"] += 1
            continue
        before = made[-1][1] if made else None
        if before is not None and before.role == message.role and (one := _one(before, message)) is not None:
            repaired[f"turns of the {message.role} in a row were merged"] += 1
            made[-1] = (made[-1][0], one)
        else:
            made.append((number, message))
    return made


def _one(before: Message, message: Message) -> Message | None:
    """Two turns of one speaker as one; ``None`` where each may be an answer of its own."""
    if message.role in ("user", "system"):
        return Message(message.role, ("\n\n".join(filter(None, [before.text, message.text])),))
    if message.role == "assistant" and before.learned == message.learned and message.tool_calls and not message.text:
        return replace(before, tool_calls=(*before.tool_calls, *message.tool_calls))
    return None


def _end_with_an_answer(turns: list[Numbered], repaired: Counter[str], last_is_judged: bool) -> None:
    """Leave out what follows the last learned answer: nothing is learned from it.

    Raises:
        ValueError: There is no such answer, or the one that was judged is empty.
    """
    roles = {message.role for _, message in turns}
    if "assistant" not in roles:
        raise ValueError("no turn of the assistant")
    dropped: Counter[str] = Counter()
    while turns and not (turns[-1][1].is_target and says(turns[-1][1])):
        message = turns.pop()[1]
        if message.role != "assistant":
            dropped[f"last turns of the {message.role}, which no answer follows, were left out"] += 1
        elif says(message):
            dropped["last answers that are not learned were left out"] += 1
        else:
            dropped["empty last answers were left out"] += 1
            if last_is_judged:
                raise ValueError("the last answer, which is judged, is empty")
    if not turns:
        raise ValueError("no turn of the assistant says anything that is learned")
    repaired.update(dropped)


def _answered(turns: Sequence[Numbered], repaired: Counter[str]) -> list[Message]:
    """The messages, each tool result with its call.

    Raises:
        ValueError: A turn is empty, an answer follows an answer, or a result has no call.
    """
    made: list[Message] = []
    waiting: list[ToolCall] = []
    for number, message in turns:
        try:
            if message.role == "tool":
                message = _to_its_call(message, waiting, repaired)
            else:
                _fits(message, made[-1] if made else None)
                waiting = list(message.tool_calls)
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from error
        made.append(message)
    return made


def _fits(message: Message, before: Message | None) -> None:
    if message.role == "user" and not says(message):
        raise ValueError("the user says nothing")
    if message.role != "assistant":
        return
    if not says(message):
        raise ValueError("the answer is empty")
    if before is not None and before.role == "assistant":
        raise ValueError("an answer follows an answer, and no one asked in between")
    ids = [call.id for call in message.tool_calls if call.id]
    if len(set(ids)) < len(ids):
        raise ValueError("two calls have one id")


def _to_its_call(message: Message, waiting: list[ToolCall], repaired: Counter[str]) -> Message:
    """The result that answers one of the waiting calls, which then waits no more."""
    if not waiting:
        raise ValueError("a tool result without its call")
    nth = next((nth for nth, call in enumerate(waiting) if call.id == message.tool_call_id), None)
    if nth is None:
        if message.tool_call_id and any(call.id for call in waiting):
            if len(waiting) > 1:
                raise ValueError(f"a tool result without its call: none has the id {message.tool_call_id[:40]!r}")
            repaired["tool results took the id of the one call before them"] += 1
            message = replace(message, tool_call_id=waiting[0].id)
        nth = 0
    waiting.pop(nth)
    return message
