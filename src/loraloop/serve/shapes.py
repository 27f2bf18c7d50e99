"""Answers in the form of OpenAI's API: chat completions, their chunks, and text completions.

Everything carries ``loraloop``: the session and the address under which a person rates it. The official client keeps it
as an attribute of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loraloop.records import Chunk
from loraloop.serve.answer import Answer, Task
from loraloop.serve.tool_calls import Held, split

Logprobs = Sequence[tuple[str, float, Mapping[str, float]]]


class Chat:
    """The form of ``/v1/chat/completions``. One object serves one answer: it keeps back what may be a tool call.

    Args:
        tools: Whether the model may call tools.
        parallel: Whether it may call several at once.
    """

    kind, streamed, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def __init__(self, tools: bool, parallel: bool) -> None:
        self._tools, self._parallel = tools, parallel
        self._held = Held()

    def choice(self, answer: Answer, logprobs: Logprobs | None) -> dict[str, Any]:
        """The one choice of a whole answer."""
        text, calls = self._split(answer, answer.text)
        message = {"role": "assistant", "content": text, "refusal": None} | ({"tool_calls": calls} if calls else {})
        return {"message": message, "logprobs": self._logprobs(logprobs), "finish_reason": _finish(answer, calls)}

    def first(self) -> dict[str, Any] | None:
        """What a stream's first chunk says before there is any text."""
        return {"delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None}

    def delta(self, chunk: Chunk, with_logprobs: bool) -> dict[str, Any] | None:
        """What a chunk adds; ``None`` where it adds nothing yet."""
        text = self._held.take(chunk.text) if self._tools else chunk.text
        if not text and not chunk.logprobs:
            return None
        return {"delta": {"content": text}, "logprobs": self._logprobs(chunk.logprobs if with_logprobs else None)}

    def end(self, answer: Answer) -> tuple[dict[str, Any] | None, str]:
        """What was kept back of a stream, and why it ends."""
        text, calls = self._split(answer, self._held.text)
        if calls:
            numbered = [{"index": place, **call} for place, call in enumerate(calls)]
            return {"delta": {"tool_calls": numbered}, "logprobs": None}, _finish(answer, calls)
        return ({"delta": {"content": text}, "logprobs": None} if text else None), _finish(answer, calls)

    def last(self) -> dict[str, Any]:
        """What a stream's last chunk adds beside the reason of the end."""
        return {"delta": {}, "logprobs": None}

    def _split(self, answer: Answer, text: str) -> tuple[str | None, list[dict[str, Any]]]:
        return split(text, answer.task.id, parallel=self._parallel) if self._tools else (text, [])

    def _logprobs(self, tokens: Logprobs | None) -> dict[str, Any] | None:
        if tokens is None:
            return None
        return {"content": [_token(*token) for token in tokens], "refusal": None}


class Completion:
    """The form of ``/v1/completions``. One object serves one answer: it counts where each token's text begins."""

    kind, streamed, prefix = "text_completion", "text_completion", "cmpl-"

    def __init__(self) -> None:
        self._offset = 0

    def choice(self, answer: Answer, logprobs: Logprobs | None) -> dict[str, Any]:
        """The one choice of a whole answer."""
        return {"text": answer.text, "logprobs": self._logprobs(logprobs), "finish_reason": _finish(answer)}

    def first(self) -> dict[str, Any] | None:
        """Nothing comes before the text."""
        return None

    def delta(self, chunk: Chunk, with_logprobs: bool) -> dict[str, Any] | None:
        """What a chunk adds; ``None`` where it adds nothing."""
        if not chunk.text and not chunk.logprobs:
            return None
        return {"text": chunk.text, "logprobs": self._logprobs(chunk.logprobs if with_logprobs else None)}

    def end(self, answer: Answer) -> tuple[None, str]:
        """Why a stream ends; nothing was kept back."""
        return None, _finish(answer)

    def last(self) -> dict[str, Any]:
        """No more text."""
        return {"text": "", "logprobs": None}

    def _logprobs(self, tokens: Logprobs | None) -> dict[str, Any] | None:
        if tokens is None:
            return None
        offsets = []
        for text, _, _ in tokens:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": [text for text, _, _ in tokens],
            "token_logprobs": [value for _, value, _ in tokens],
            "top_logprobs": [dict(others) for _, _, others in tokens],
            "text_offset": offsets,
        }


Form = Chat | Completion


def whole(form: Form, answer: Answer, logprobs: Logprobs | None) -> dict[str, Any]:
    """The body of an answer that is given at once."""
    choice = {"index": 0, **form.choice(answer, logprobs)}
    return _frame(form, answer.task, form.kind, [choice]) | {"usage": usage(answer)}


def event(form: Form, task: Task, part: Mapping[str, Any], finish: str | None, counted: bool) -> dict[str, Any]:
    """One event of a stream."""
    frame = _frame(form, task, form.streamed, [{"index": 0, **part, "finish_reason": finish}])
    return frame | ({"usage": None} if counted else {})


def final(form: Form, answer: Answer) -> dict[str, Any]:
    """A stream's event after the last, with the tokens that were used."""
    return _frame(form, answer.task, form.streamed, []) | {"usage": usage(answer)}


def usage(answer: Answer) -> dict[str, int]:
    """Tokens of prompt and answer."""
    asked, given = answer.task.tokens, answer.tokens
    return {"prompt_tokens": asked, "completion_tokens": given, "total_tokens": asked + given}


def _finish(answer: Answer, calls: Sequence[Any] = ()) -> str:
    """The API's word for why an answer ended."""
    return "tool_calls" if calls else answer.finish or "stop"


def _frame(form: Form, task: Task, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": form.prefix + task.id,
        "object": kind,
        "created": int(task.created.timestamp()),
        "model": task.route.answered,
        "choices": choices,
        "loraloop": {"session": task.id, "rate": task.link},
    }


def _token(text: str, value: float, others: Mapping[str, float]) -> dict[str, Any]:
    top = [{"token": other, "logprob": at, "bytes": list(other.encode())} for other, at in others.items()]
    return {"token": text, "logprob": value, "bytes": list(text.encode()), "top_logprobs": top}
