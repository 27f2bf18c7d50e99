"""Sessions with screens as conversations that call tools: the system, the task, calls, and what they led to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, groupby

from loraloop.core import tool_calls
from loraloop.core.same_task import collapse
from loraloop.records import Message, Session
from loraloop.records import ToolCall as Call
from loraloop.source.sessions.calls import Iteration, ToolCall, steps
from loraloop.source.sessions.targets import Target
from loraloop.source.sessions.text import asked, render, usable


def whole(session: Session) -> tuple[Message, ...]:
    """A good session: each turn with calls is learned, and the answer in words where it gave one.

    Empty where it recorded no call.
    """
    recorded = steps(session)
    if not any(step.calls for step in recorded):
        return ()
    said = _turns(session, recorded, learned=True)
    if text := usable(session.answer):
        return (*said, Message("assistant", (text,)))
    last = max(nth for nth, message in enumerate(said) if message.role == "assistant")
    return said[: last + 1]


def corrected(session: Session, target: Target) -> tuple[Message, ...]:
    """A bad session up to the step that the target takes otherwise, and the target's calls in the place of that step.

    Only that turn is learned: the steps before it are the past. Empty where the target has no calls, or calls nothing
    that the session did not.
    """
    recorded = steps(session)
    own = [call for step in recorded for call in step.calls]
    new = list(chain.from_iterable(target.steps))
    pairs = zip(own, new, strict=False)
    nth = next((nth for nth, pair in enumerate(pairs) if render(pair[:1]) != render(pair[1:])), min(len(own), len(new)))
    if nth >= len(new):
        return ()
    ends = list(accumulate(len(step.calls) for step in recorded))
    at = next((at for at, end in enumerate(ends) if nth < end), len(recorded))
    start = ends[at - 1] if at else 0
    end = next(end for end in accumulate(map(len, target.steps)) if nth < end)
    chosen = new[start:end]
    if target.source == "rule":  # what follows the correction and was recorded is of later steps
        later = own[ends[at] :] if at < len(recorded) else []
        while later and len(chosen) > nth - start + 1 and render([later[-1]]) == render([chosen[-1]]):
            later.pop()
            chosen.pop()
    past = _turns(session, recorded[: at + 1], learned=False, until=at)
    return (*past, _acted(chosen, start, learned=True))


def same_calls(message: Message, answer: str) -> bool:
    """Whether a text holds the calls of a message, in order."""
    try:
        found = tool_calls.read(answer)
    except ValueError:
        return False
    said, wanted = ([(call.name, dict(call.arguments)) for call in calls] for calls in (found, message.tool_calls))
    return said == wanted


def _turns(
    session: Session, recorded: Sequence[Iteration], *, learned: bool, until: int | None = None
) -> tuple[Message, ...]:
    """The question with the screens before the first call, then the calls of each step and what they led to.

    Args:
        session: Whose task is asked.
        recorded: Its steps, as many as were seen.
        learned: Whether the calls are.
        until: The number of steps whose calls are told; ``None`` for all.
    """
    if not recorded:
        return asked(session)
    acting = [nth for nth, step in enumerate(recorded) if step.calls]
    first = _screens(recorded[: acting[0] + 1] if acting else recorded)
    made = [Message("system", (session.instruction,))] if session.instruction else []
    made.append(Message("user", (collapse(session.task) + (f"\nScreen: {first}" if first else ""),)))
    count = 0
    for nth, following in zip(acting, [*acting[1:], len(recorded)], strict=True):
        chosen = recorded[nth].calls
        if until is not None and nth >= until:
            break
        made.append(_acted(chosen, count, learned=learned))
        for place, call in enumerate(chosen, 1):
            seen = _screens(recorded[nth + 1 : following + 1]) if place == len(chosen) else ""
            told = "\n".join(filter(None, [call.error and f"error: {collapse(call.error)}", seen]))
            made.append(Message("tool", (told,), tool_call_id=_id(count + place), name=call.name))
        count += len(chosen)
    return tuple(made)


def _screens(seen: Sequence[Iteration]) -> str:
    """What screens showed, in order, repeats left out."""
    texts = (collapse(step.screenshot_summary or "") for step in seen)
    return " > ".join(text for text, _ in groupby(filter(None, texts)))


def _acted(chosen: Sequence[ToolCall], before: int, *, learned: bool) -> Message:
    called = tuple(Call(call.name, call.arguments, _id(before + nth)) for nth, call in enumerate(chosen, 1))
    return Message("assistant", (), called, learned=learned)


def _id(number: int) -> str:
    return f"call_{number}"
