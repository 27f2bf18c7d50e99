"""Answers in the form of OpenAI's API: chat completions, their chunks, and text completions.

Everything carries ``loraloop``: the session and the address under which a person rates it. The official client keeps it
as an attribute of the answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraloop import __version__
from loraloop.core.tool_calls import given, in_openai_form
from loraloop.records import Chunk
from loraloop.serve.answer import Answer, Task
from loraloop.serve.tool_calls import Held

Logprobs = Sequence[tuple[str, float | None, Mapping[str, float]]]
PART = re.compile(r"bytes:((?:\\x[0-9a-f]{2})+)")
"""A token that is a part of a character, as a backend names it."""


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
        said, calls = given(text, self._tools, parallel=self._parallel)
        return (said or None) if calls else said, in_openai_form(calls, answer.task.id)

    def _logprobs(self, tokens: Logprobs | None) -> dict[str, Any] | None:
        if tokens is None:
            return None
        return {"content": [_token(*token) for token in tokens], "refusal": None}


class Completion:
    """The form of ``/v1/completions``. One object serves one answer: it counts where each token's text begins."""

    kind, streamed, prefix = "text_completion", "text_completion", "cmpl-"

    def __init__(self) -> None:
        self._offset = 0
        self._part = b""

    def choice(self, answer: Answer, logprobs: Logprobs | None) -> dict[str, Any]:
        """The choice of a whole answer; the prompt stands before it where it was asked for."""
        request = answer.task.request
        text = request.prompt + answer.text if request.echo else answer.text
        told = self._logprobs(logprobs, text if request.echo else None)
        return {"text": text, "logprobs": told, "finish_reason": _finish(answer)}

    def first(self) -> dict[str, Any] | None:
        """Nothing comes before the text."""
        return None

    def delta(self, chunk: Chunk, with_logprobs: bool) -> dict[str, Any] | None:
        """What a chunk adds; ``None`` where it adds nothing."""
        if not chunk.text and not chunk.logprobs:
            return None
        told = self._logprobs(chunk.logprobs if with_logprobs else None, chunk.text if chunk.echo else None)
        return {"text": chunk.text, "logprobs": told}

    def end(self, answer: Answer) -> tuple[None, str]:
        """Why a stream ends; nothing was kept back."""
        return None, _finish(answer)

    def last(self) -> dict[str, Any]:
        """No more text."""
        return {"text": "", "logprobs": None}

    def _logprobs(self, tokens: Logprobs | None, echoed: str | None) -> dict[str, Any] | None:
        if tokens is None:
            return None
        if echoed is not None and tokens and not PART.fullmatch(tokens[0][0]) and not echoed.startswith(tokens[0][0]):
            self._offset = -len(tokens[0][0])  # the start token, which is in no text
        return {
            "tokens": [text for text, _, _ in tokens],
            "token_logprobs": [value for _, value, _ in tokens],
            "top_logprobs": [None if value is None else dict(others) for _, value, others in tokens],
            "text_offset": [max(0, self._begin(text)) for text, _, _ in tokens],
        }

    def _begin(self, token: str) -> int:
        """Where a token's text begins; that of a part of a character is where the character does."""
        begin = self._offset
        if PART.fullmatch(token):
            self._part += bytes(_bytes(token))
            with contextlib.suppress(UnicodeDecodeError):
                self._offset += len(self._part.decode())
                self._part = b""
        else:
            self._offset += len(token)
            self._part = b""
        return begin


Form = Chat | Completion


@dataclass
class Choice:
    """One of the answers to a request.

    Attributes:
        place: Its index.
        form: How it is written.
        answer: What was generated.
        logprobs: Of all its tokens, where they are asked for.
    """

    place: int
    form: Form
    answer: Answer
    logprobs: Logprobs | None = None


def whole(choices: Sequence[Choice]) -> dict[str, Any]:
    """The body of answers that are given at once; each of several says its own session."""
    first = choices[0]
    many = len(choices) > 1
    told = [
        {"index": each.place, **each.form.choice(each.answer, each.logprobs)}
        | ({"loraloop": _session(each.answer.task)} if many else {})
        for each in choices
    ]
    answers = [each.answer for each in choices]
    return _frame(first.form, first.answer.task, first.form.kind, told) | {"usage": usage(answers)}


def event(choice: Choice, first: Task, part: Mapping[str, Any], finish: str | None, counted: bool) -> dict[str, Any]:
    """One event of a stream; ``first`` is the task of the first choice, which names the whole."""
    told = {"index": choice.place, **part, "finish_reason": finish}
    frame = _frame(choice.form, first, choice.form.streamed, [told]) | {"loraloop": _session(choice.answer.task)}
    return frame | ({"usage": None} if counted else {})


def final(form: Form, answers: Sequence[Answer]) -> dict[str, Any]:
    """A stream's event after the last, with the tokens that were used."""
    return _frame(form, answers[0].task, form.streamed, []) | {"usage": usage(answers)}


def usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """Tokens of the prompts and the answers; a prompt of several choices counts once."""
    counted = [answer for answer in answers if answer.task.counts_prompt]
    asked = sum(answer.task.tokens for answer in counted)
    given = sum(answer.tokens for answer in answers)
    return {
        "prompt_tokens": asked,
        "completion_tokens": given,
        "total_tokens": asked + given,
        "prompt_tokens_details": {"cached_tokens": sum(answer.reused for answer in counted)},
    }


def _finish(answer: Answer, calls: Sequence[Any] = ()) -> str:
    """The API's word for why an answer ended."""
    return "tool_calls" if calls else answer.finish or "stop"


def _frame(form: Form, task: Task, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": form.prefix + task.id,
        "object": kind,
        "created": int(task.created.timestamp()),
        "model": task.route.answered,
        "system_fingerprint": _fingerprint(task.route.answered),
        "choices": choices,
        "loraloop": _session(task),
    }


def _session(task: Task) -> dict[str, str]:
    return {"session": task.id, "rate": task.link}


def _fingerprint(answered: str) -> str:
    """The same as long as the same version answers under the same release."""
    return "fp_" + hashlib.sha256(f"{__version__} {answered}".encode()).hexdigest()[:10]


def _token(text: str, value: float | None, others: Mapping[str, float]) -> dict[str, Any]:
    top = [{"token": other, "logprob": at, "bytes": _bytes(other)} for other, at in others.items()]
    return {"token": text, "logprob": value, "bytes": _bytes(text), "top_logprobs": top}


def _bytes(token: str) -> list[int]:
    """The bytes that a token stands for; several tokens may make one character."""
    part = PART.fullmatch(token)
    return list(bytes.fromhex(part[1].replace("\\x", ""))) if part else list(token.encode())
