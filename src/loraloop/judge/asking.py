"""A judge at work: calls that are counted, repeated where that helps, and never more than it may send."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI

from loraloop.core.hashing import sha256_json
from loraloop.judge import prompt
from loraloop.judge.cache import Cache
from loraloop.judge.deadline import within
from loraloop.judge.verdict import BETTER, SCORE, Form
from loraloop.records import Judgement, Session
from loraloop.records.judgement import JUDGE, NO_ANSWER, NONSENSE, OVER_BUDGET, REFUSED

PAUSE_SECONDS = 0.5
"""Before the first repetition; twice as long before each further one."""
LONGEST_PAUSE = 30.0
WORTH_REPEATING = frozenset({408, 409, 429})
NO_SUCH_FORMAT = frozenset({400, 422})
"""How servers refuse a ``response_format`` that they do not know."""


class _OverBudgetError(Exception):
    """No call is left."""


@dataclass
class _Spent:
    """What one question cost so far, and how long the server asks to wait before it is repeated."""

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    pause: float = 0.0


class Asking:
    """A :class:`loraloop.protocols.Judging` on an OpenAI-compatible server.

    The verdict is asked for by its schema. A server that refuses the schema, and answers the same question without it,
    is asked without it from then on, and the verdict is read from the text in the same way.

    Args:
        client: The official client of its server, without a timeout of its own.
        model: Its name there.
        rubric: What makes an answer good.
        cache: What it said before.
        seconds: How long one call may take.
        retries: How often a call without a verdict is repeated.
        max_calls: Calls that it may send in all.
        max_tokens: Of one answer.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        model: str,
        rubric: str,
        cache: Cache,
        *,
        seconds: float,
        retries: int,
        max_calls: int,
        max_tokens: int,
    ) -> None:
        self._client, self._model, self._rubric, self._cache = client, model, rubric, cache
        self._seconds, self._retries, self._max_calls, self._max_tokens = seconds, retries, max_calls, max_tokens
        self._left = max_calls
        self._structured = True

    def score(self, session: Session) -> Judgement:
        """How good the answer of a session is: 1 to 5, by the rubric."""
        return self._judged(prompt.one(self._rubric, session), SCORE)

    def prefer(self, first: Session, second: Session) -> Judgement:
        """Which of two answers to the task of ``first`` is better.

        It is asked in both orders, since judges favour a place; where the two replies differ, it is a tie.
        """
        one, two = first.answer or "", second.answer or ""
        found = self._judged(prompt.two(self._rubric, first, one, two), BETTER)
        if found.failed:
            return found
        swapped = self._judged(prompt.two(self._rubric, first, two, one), BETTER)
        better = {("A", "B"): "first", ("B", "A"): "second"}.get((str(found.value), str(swapped.value)), "tie")
        return replace(
            swapped,
            value=None if swapped.failed else better,
            reason=found.reason,
            calls=found.calls + swapped.calls,
            tokens=found.tokens + swapped.tokens,
            seconds=found.seconds + swapped.seconds,
            cached=found.cached and swapped.cached,
        )

    def _judged(self, messages: prompt.Messages, form: Form) -> Judgement:
        """What the judge says, or why it says nothing that counts."""
        key = sha256_json([str(self._client.base_url), self._model, self._max_tokens, messages])
        if (kept := self._cache.get(key)) is not None:
            return kept
        spent, found = _Spent(), Judgement(value=None)
        for attempt in range(self._retries + 1):
            if attempt and found.failed == NO_ANSWER:
                time.sleep(min(LONGEST_PAUSE, spent.pause))
            asked = prompt.reminded(messages) if found.failed == NONSENSE else messages
            found = self._once(asked, form, spent)
            if found.failed not in (NONSENSE, NO_ANSWER):
                break
            spent.pause = spent.pause or PAUSE_SECONDS * 2**attempt
        if not found.failed:
            self._cache.put(key, found)
        return replace(found, calls=spent.calls, tokens=spent.tokens, seconds=spent.seconds)

    def _once(self, messages: prompt.Messages, form: Form, spent: _Spent) -> Judgement:
        """One attempt: one call, and another one where the server may not know the schema."""
        try:
            text, cut = self._reply(messages, form, spent)
        except _OverBudgetError:
            return Judgement(value=None, failed=OVER_BUDGET, detail=f"judge.max_calls={self._max_calls}")
        except APIStatusError as error:
            again = error.status_code in WORTH_REPEATING or error.status_code >= 500
            spent.pause = _asked_to_wait(error)
            return Judgement(value=None, failed=NO_ANSWER if again else REFUSED, detail=_short(error))
        except (APIConnectionError, TimeoutError) as error:
            return Judgement(value=None, failed=NO_ANSWER, detail=_short(error.__cause__ or error))
        except (APIError, ValueError) as error:  # no JSON, where the API's own form is due
            return Judgement(value=None, failed=NONSENSE, detail=_short(error))
        if cut:  # also a whole verdict: what the judge had still to say may have taken it back
            said = f"cut at judge.max_tokens={self._max_tokens}, raise it: {text}"
            return Judgement(value=None, failed=NONSENSE, detail=_short(said))
        read = form.read(text, messages[-1]["content"])
        if read is None:
            return Judgement(value=None, failed=NONSENSE, detail=_short(text))
        return Judgement(value=read[0], reason=read[1])

    def _reply(self, messages: prompt.Messages, form: Form, spent: _Spent) -> tuple[str, bool]:
        """As :meth:`_ask`; without the schema only where the server does not take that."""
        if self._structured:
            try:
                return self._ask(spent, messages=messages, response_format=form.response_format)
            except APIStatusError as error:
                if error.status_code not in NO_SUCH_FORMAT:
                    raise
        found = self._ask(spent, messages=messages)
        self._structured = False  # not before: a question that is too long is refused without the schema too
        return found

    def _ask(self, spent: _Spent, **asked: Any) -> tuple[str, bool]:
        """The text that the server answers, and whether it ended at the most tokens."""
        if self._left == 0:
            raise _OverBudgetError
        self._left -= 1
        spent.calls += 1
        asked |= {"model": self._model, "user": JUDGE, "temperature": 0, "max_tokens": self._max_tokens}
        began = time.monotonic()
        try:
            answer = within(self._seconds, lambda: self._client.chat.completions.create(**asked))
        finally:
            spent.seconds += time.monotonic() - began
        try:
            spent.tokens += answer.usage.total_tokens if answer.usage else 0
            choice = answer.choices[0]
            return choice.message.content or "", getattr(choice, "finish_reason", None) == "length"
        except (AttributeError, IndexError, TypeError) as error:  # the client does not check what a server sends
            raise ValueError(f"no answer of OpenAI's form: {error}") from error


def _asked_to_wait(error: APIStatusError) -> float:
    """Seconds that the server names; 0 where it names none."""
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return 0.0


def _short(said: object) -> str:
    return " ".join(str(said).split())[:200]
