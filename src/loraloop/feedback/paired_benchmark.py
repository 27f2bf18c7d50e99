"""The same prompts to several adapters, one answer at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loraloop.protocols import Backend
from loraloop.records import GenerationRequest


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, how many seconds it took and how many tokens it has."""

    text: str
    seconds: float
    tokens: int


async def ask_all(
    backend: Backend, models: Sequence[str], prompts: Sequence[str], max_tokens: int, asked: Callable[[], None]
) -> dict[str, list[Answered]]:
    """Every model's greedy answers to ``prompts``.

    Each prompt goes to every model before the next one is asked, and each time another model comes first: whatever
    else the machine does meets all of them alike. A first round, which loads adapters, is not measured.

    Args:
        backend: Started.
        models: ``base`` or versions.
        prompts: Rendered.
        max_tokens: Longest answer.
        asked: Called after every answer.
    """
    for model in models:
        await _ask(backend, model, prompts[0], max_tokens)
    answers: dict[str, list[Answered]] = {model: [] for model in models}
    for turn, prompt in enumerate(prompts):
        first = turn % len(models)
        for model in (*models[first:], *models[:first]):
            answers[model].append(await _ask(backend, model, prompt, max_tokens))
            asked()
    return answers


async def _ask(backend: Backend, model: str, prompt: str, max_tokens: int) -> Answered:
    began, text, tokens = time.perf_counter(), "", 0
    async for piece in backend.generate(
        GenerationRequest(model=model, prompt=prompt, max_tokens=max_tokens, temperature=0.0)
    ):
        text += piece.text
        tokens += piece.tokens
    return Answered(text, time.perf_counter() - began, tokens)
