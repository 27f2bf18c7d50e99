"""What was read for an earlier answer is used again, by the right requests, and changes no answer."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from loraloop.records import GenerationRequest
from loraloop.serve.engine.prefix_cache import BLOCK, PrefixCache

NAMES = ("base", "ocr@1", "ocr@2", "action@1")
PAST = "count heads and tails\nHTHHTTHT\nrepeat\nHT01\nopen the old brass gate\n> "


def ask(prompt: str, model: str = "base", **changes) -> GenerationRequest:
    """A greedy ask of eight tokens."""
    settings = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0.0, "logprobs": 0} | changes
    return GenerationRequest(**settings)


def converse(engine, turns: int, seed: int) -> list[list[tuple[str, int, list[float]]]]:
    """Conversations of every model at once, each with user turns of its own, and how far each answer was known."""

    async def one(number: int) -> list[tuple[str, int, list[float]]]:
        rng = np.random.default_rng([seed, number])
        prompt, told = PAST[: int(rng.integers(5, len(PAST)))], []
        for turn in range(turns):
            found = [chunk async for chunk in engine.generate(ask(prompt, NAMES[number % len(NAMES)]))]
            text = "".join(chunk.text for chunk in found)
            logs = [own for chunk in found for _, own, _ in chunk.logprobs]
            told.append((text, sum(chunk.reused for chunk in found), logs))
            prompt += f"{text}\n{turn} " + "".join(rng.choice(list("HTab01 "), int(rng.integers(1, 30)))) + "\n> "
        return told

    async def every() -> list[list[tuple[str, int, list[float]]]]:
        return list(await asyncio.gather(*map(one, range(7))))

    return asyncio.run(every())


def reused(engine, request: GenerationRequest) -> int:
    """How many tokens of its prompt are not read anew."""

    async def go() -> int:
        return sum([chunk.reused async for chunk in engine.generate(request)])

    return asyncio.run(go())


@pytest.mark.parametrize("places", [4, 8])
def test_conversations_are_answered_as_without_the_cache(backend, versions, places):
    """Greedy answers over three turns, of base and adapters in mixed batches, are those without the cache."""
    plain = converse(backend(*versions.values(), prefix_cache_mb=0, max_batch=places), 3, places)
    engine = backend(*versions.values(), max_batch=places)
    cached = converse(engine, 3, places)
    for one, other in zip(plain, cached, strict=True):
        assert [text for text, _, _ in one] == [text for text, _, _ in other]
        assert [each for _, _, logs in other for each in logs] == pytest.approx(
            [each for _, _, logs in one for each in logs], abs=1e-4
        )
    assert {known for turns in plain for _, known, _ in turns} == {0}
    assert all(known >= BLOCK for turns in cached for _, known, _ in turns[2:])
    assert engine.stats()["prefix_tokens"] == sum(known for turns in cached for _, known, _ in turns)


def test_the_next_turn_is_read_from_where_the_last_answer_ended(backend, answer):
    """Of a prompt that goes on from an answer, at most a block and the new turn are read."""
    engine = backend()
    (first,) = answer(engine, [ask(PAST, max_tokens=40)])
    known = engine.tokens(PAST) + first.tokens - 1
    assert reused(engine, ask(f"{PAST}{first.text}\nnext\n> ")) == known // BLOCK * BLOCK


def test_a_prompt_that_is_known_whole_is_answered(backend, answer):
    """A prompt whose every token is known is still read from its last block on, and has the same answer."""
    engine = backend()
    asked = ask(PAST[: 4 * BLOCK - 1])  # and the start token
    assert answer(engine, [asked])[0].text == answer(engine, [asked])[0].text
    assert reused(engine, asked) == 3 * BLOCK


@pytest.mark.parametrize(
    "other",
    [ask(PAST, "ocr@2"), ask(PAST), ask(PAST, "ocr@1", cache_scope="bob"), ask(PAST, "ocr@1", cache_scope=None)],
)
def test_nothing_is_shared_between_adapters_or_scopes(backend, versions, answer, other):
    """What an adapter read for one client is used neither by another adapter or the base nor for another client."""
    engine = backend(*versions.values())
    asked = ask(PAST, "ocr@1", cache_scope="alice")
    answer(engine, [asked])
    assert reused(engine, other) == 0
    assert reused(engine, asked) > 0


def test_a_version_that_replaces_another_reads_anew(backend, versions, make_version, answer, tmp_path):
    """A version put in the place of another under its name answers as if it had always been there."""
    new = make_version("ocr@1", tmp_path / "new", seed=7, r=8, lora_alpha=16, target_modules="all-linear")
    fresh = backend()
    fresh.load("ocr@1", new)
    (expected,) = answer(fresh, [ask(PAST, "ocr@1")])
    fresh.close()
    engine = backend(*versions.values())
    answer(engine, [ask(PAST, "ocr@1")])
    engine.load("ocr@1", new)
    (found,) = answer(engine, [ask(PAST, "ocr@1")])
    assert found.text == expected.text
    assert engine.stats()["prefix_tokens"] == 0


def test_a_row_that_leaves_a_padded_batch_is_kept_without_its_padding(backend, answer):
    """What is kept of a row is its own tokens, also where it stood beside longer rows."""
    engine = backend()
    asked = [ask(PAST[:40], max_tokens=4), ask(PAST * 2), ask("x" + PAST, max_tokens=12)]
    alone = [answer(engine, [each])[0].text for each in asked]
    again = backend()
    answer(again, asked)
    assert [answer(again, [each])[0].text for each in asked] == alone
    assert again.stats()["prefix_tokens"] > 0


def state(tokens: int):
    """Keys and values of so many tokens: 128 bytes each."""
    import torch

    return torch.zeros((2, 2, tokens, 8))


def test_the_memory_of_the_cache_is_bounded():
    """Blocks take no more than the bound, the least recently used go first, and a prompt's beginning goes last."""
    cache = PrefixCache(1)
    prompts = [[number] * 128 * BLOCK for number in range(5)]
    for tokens in prompts:
        cache.keep("base", tokens, lambda begin, end: state(end - begin))
        cache.find("base", [*prompts[0], 9])
    assert cache.bytes <= 2**20
    assert cache.evictions == 128
    assert len(cache.find("base", [*prompts[0], 9])) == 128
    assert [len(cache.find("base", [*tokens, 9])) for tokens in prompts[1:]] == [0, 128, 128, 128]
    cache.keep("base", [9] * 64 * BLOCK, lambda begin, end: state(end - begin))
    assert len(cache.find("base", [*prompts[2], 9])) + len(cache.find("base", [*prompts[0], 9])) == 128 + 64


def test_only_new_blocks_are_read():
    """Of tokens that go on from known ones, only the whole blocks behind those are asked for."""
    cache, asked = PrefixCache(1), []

    def read(begin: int, end: int):
        asked.append((begin, end))
        return state(end - begin)

    cache.keep("base", list(range(2 * BLOCK + 5)), read)
    cache.keep("base", list(range(4 * BLOCK)), read)
    cache.keep("base", list(range(4 * BLOCK)), read)
    assert asked == [(0, 2 * BLOCK), (2 * BLOCK, 4 * BLOCK)]


def test_memory_that_is_short_ends_no_answer():
    """Where there is no room to keep an answer, nothing is kept and nothing is raised; another error is."""
    cache = PrefixCache(1)

    def no_room(begin: int, end: int):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    cache.keep("a", list(range(40)), no_room)
    assert cache.find("a", list(range(40))) == []

    def wrong(begin: int, end: int):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        cache.keep("a", list(range(40)), wrong)
