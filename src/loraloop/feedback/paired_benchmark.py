"""Times the answers of several adapters to the same prompts, pair by pair."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loraloop.protocols import Backend
from loraloop.records import GenerationRequest


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """An answer, how many seconds it took and how many tokens it has."""

    text: str
    seconds: float
    tokens: int


async def time_answers(
    backend: Backend, models: Sequence[str], prompts: Sequence[str], max_tokens: int, on_answer: Callable[[], None]
) -> dict[str, list[TimedAnswer]]:
    """Time every model's greedy answers to ``prompts``, one at a time.

    Each prompt goes to every model before the next prompt does, and the model that comes first changes with each
    prompt, so that other load on the machine slows all models alike. A first round, which loads adapters, is not timed.

    Args:
        backend: Started.
        models: ``base`` or versions.
        prompts: Rendered.
        max_tokens: Longest answer.
        on_answer: Called after every answer.
    """
    for model in models:
        await _answer(backend, model, prompts[0], max_tokens)
    answers: dict[str, list[TimedAnswer]] = {model: [] for model in models}
    for turn, prompt in enumerate(prompts):
        first = turn % len(models)
        for model in (*models[first:], *models[:first]):
            answers[model].append(await _answer(backend, model, prompt, max_tokens))
            on_answer()
    return answers


async def _answer(backend: Backend, model: str, prompt: str, max_tokens: int) -> TimedAnswer:
    began, text, tokens = time.perf_counter(), "", 0
    async for chunk in backend.generate(
        GenerationRequest(model=model, prompt=prompt, max_tokens=max_tokens, temperature=0.0)
    ):
        text += chunk.text
        tokens += chunk.tokens
    return TimedAnswer(text, time.perf_counter() - began, tokens)
