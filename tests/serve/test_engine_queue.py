"""Places, deadlines, leaving, and what is refused."""

from __future__ import annotations

import asyncio
import copy
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from loraloop.errors import BusyError, ConfigError, ModelError
from loraloop.records import GenerationRequest, LoadedModel
from loraloop.serve.engine import generation
from loraloop.serve.engine.prompt import longest_token
from loraloop.serve.local import LocalBackend

COPY = GenerationRequest(
    model="base", prompt="copy\nopen the old brass gate 0123456789\n> ", max_tokens=60, temperature=0.0
)


@pytest.fixture(scope="module")
def endless(base) -> LoadedModel:
    """The base without an end token: its answers end with the room for them."""
    model, tokenizer = copy.deepcopy(base.model), copy.deepcopy(base.tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    return LoadedModel(model, tokenizer, base.base)


@pytest.fixture
def busy(endless):
    """A function that starts an engine whose answers do not end by themselves."""
    running = []

    def start(**bounds):
        engine = LocalBackend(**bounds).attach(endless)
        engine.start()
        running.append(engine)
        return engine

    yield start
    for engine in running:
        engine.close()


def test_a_full_queue_refuses(busy):
    """With one place and one seat in the queue the third request is refused, and taken once another has left."""
    engine = busy(max_batch=1, max_queue=1)
    long = replace(COPY, max_tokens=2000)

    async def go():
        first, second, third = (engine.generate(long) for _ in range(3))
        await anext(first)
        waiting = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)
        assert engine.stats()["active"] + engine.stats()["queue"] == 2
        with pytest.raises(BusyError, match="max_queue"):
            await anext(third)
        await first.aclose()
        assert (await waiting).text
        await second.aclose()
        assert engine.stats()["active"] == 0

    asyncio.run(go())


def test_leaving_frees_the_place(busy, endless, monkeypatch):
    """Whoever leaves the iteration, by closing it or by a cancelled task, makes room for the next at the next token."""
    engine = busy(max_batch=1, max_queue=4)
    long = replace(COPY, max_tokens=2000)
    steps, forward = [], endless.model.forward
    monkeypatch.setattr(endless.model, "forward", lambda **given: steps.append(1) or forward(**given))

    async def hang():
        async for _ in engine.generate(long):
            pass

    async def go():
        for _ in range(2):
            task = asyncio.ensure_future(hang())
            chunks = engine.generate(long)
            await asyncio.sleep(0)
            waiting = asyncio.ensure_future(anext(chunks))
            await asyncio.sleep(0)
            task.cancel()
            assert (await waiting).text
            await chunks.aclose()

    asyncio.run(go())
    assert engine.stats()["queue"] == 0
    assert len(steps) < 1000


def test_requests_are_served_in_their_order(backend):
    """With one place, answers begin in the order in which they were asked for."""
    engine = backend(max_batch=1)
    order = []

    async def one(number: int):
        async for _ in engine.generate(replace(COPY, max_tokens=2)):
            if number not in order:
                order.append(number)

    async def go():
        await asyncio.gather(*map(one, range(6)))

    asyncio.run(go())
    assert order == list(range(6))


def test_a_late_answer_ends_as_it_is(busy, monkeypatch):
    """At its deadline an answer ends with ``length`` and what it has; one still in the queue is refused."""
    engine = busy(max_batch=1)
    clock = SimpleNamespace(monotonic=time.monotonic)
    monkeypatch.setattr(generation, "time", clock)
    long = replace(COPY, max_tokens=2000)

    async def go():
        first, second = engine.generate(long), engine.generate(long)
        chunks = [await anext(first)]
        waiting = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)
        clock.monotonic = lambda: time.monotonic() + 1000
        chunks += [chunk async for chunk in first]
        with pytest.raises(BusyError, match="deadline"):
            await waiting
        return chunks

    chunks = asyncio.run(go())
    assert chunks[-1].finish == "length"
    assert sum(chunk.tokens for chunk in chunks) < 2000


def test_closing_ends_every_answer(busy):
    """On closing, answers in progress and in the queue end with a BusyError, and later ones are refused."""
    engine = busy(max_batch=1)
    long = replace(COPY, max_tokens=2000)

    async def go():
        first, second = engine.generate(long), engine.generate(long)
        await anext(first)
        waiting = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.close)
        for ended in (waiting, drain(first), anext(engine.generate(COPY))):
            with pytest.raises(BusyError, match="shutting down"):
                await ended

    asyncio.run(go())


async def drain(chunks) -> None:
    async for _ in chunks:
        pass


def test_a_failing_step_ends_its_answers_alone(backend, base, answer, monkeypatch):
    """When the model fails, who was being answered gets an error that says so; the next request is answered."""
    engine = backend()
    (before,) = answer(engine, [COPY])
    with monkeypatch.context() as patch:
        patch.setattr(base.model, "forward", lambda **_: 1 / 0)
        with pytest.raises(ModelError, match="division by zero"):
            answer(engine, [COPY])
    assert answer(engine, [COPY]) == [before]


@pytest.mark.parametrize("stop", ["the", "brass ", "n the o", "45678"])
def test_a_stop_string_ends_an_answer(backend, answer, stop):
    """An answer ends before the stop string, which may span tokens, with ``stop`` and without further tokens."""
    engine = backend()
    whole, cut = answer(engine, [COPY, replace(COPY, stop=("never", stop))])
    at = whole.text.index(stop)
    assert cut.text == whole.text[:at]
    assert cut.finish == "stop"
    assert cut.tokens == at + len(stop)


def test_an_answer_ends_with_its_length_or_its_end(backend, answer):
    """``max_tokens`` ends an answer with ``length``, the end token with ``stop``; both are counted as generated."""
    whole, short = answer(backend(), [COPY, replace(COPY, max_tokens=7)])
    assert (whole.finish, whole.tokens) == ("stop", len(whole.text) + 1)
    assert (short.finish, short.tokens, short.text) == ("length", 7, whole.text[:7])


def test_prompt_and_answer_share_the_limit(backend, answer):
    """An answer gets what the prompt leaves of the limit; a prompt that leaves nothing is refused with the numbers."""
    engine = backend(max_length=50)
    assert engine.limit() == 50
    prompt = COPY.prompt
    assert engine.tokens(prompt) == len(prompt) + 1 == 43
    (cut,) = answer(engine, [COPY])
    assert (cut.finish, cut.tokens) == ("length", 7)
    with pytest.raises(ModelError, match="51 tokens; it must have 1 to 49"):
        answer(engine, [replace(COPY, prompt="x" * 50)])


def test_a_limit_above_the_positions_is_refused(base):
    """``max_length`` cannot exceed the model's positions; null means these."""
    with pytest.raises(ConfigError, match=r"serve.max_length=4096 is above the 2048 positions"):
        LocalBackend(max_length=4096).attach(base).check()
    assert LocalBackend(max_length=None).attach(base).limit() == 2048


def test_alternatives_are_told_apart(backend, answer):
    """Each token comes with as many distinct alternatives as asked for, the likeliest first, also within characters."""
    (found,) = answer(backend(), [replace(COPY, prompt="copy\né😀é\n> ", logprobs=5)])
    assert found.logprobs
    for token, own, others in found.logprobs:
        assert len(others) == 5
        assert list(others.values()) == sorted(others.values(), reverse=True)
        assert others[token] == own


def test_an_unknown_model_is_named(backend, answer):
    """Without a resolver, a model that is not loaded is refused with those that are."""
    with pytest.raises(ModelError, match="ocr@9 is not loaded; there are base"):
        answer(backend(), [replace(COPY, model="ocr@9")])


def test_a_prompt_is_rendered_as_in_training(backend, base, versions):
    """A user's message becomes the prompt of the data set's template, for the base that of the chat template."""
    engine = backend(versions["ocr@1"])
    message = {"role": "user", "content": "count\nHTHT"}
    assert engine.render([message], "base") == "count\nHTHT\n> "
    assert engine.render([message], "ocr@1") == "count\nHTHT\n> "
    turns = [{"role": "system", "content": "count"}, {"role": "user", "content": "HTHT"}]
    assert engine.render(turns, "ocr@1") == "count\nHTHT\n> "


def test_an_adapter_can_be_loaded_before_the_start(base, versions, answer):
    """What is loaded before the engine starts answers as soon as it has started."""
    engine = LocalBackend().attach(base)
    engine.load("ocr@1", versions["ocr@1"])
    engine.start()
    assert answer(engine, [replace(COPY, model="ocr@1")])[0].text
    engine.close()


def test_a_thread_outlives_what_nobody_expected(backend, answer, monkeypatch):
    """An error between two tokens ends the answers in progress with it, and the next request is answered."""
    engine = backend()
    (before,) = answer(engine, [COPY])
    with monkeypatch.context() as patch:
        patch.setattr(generation.Generation, "late", property(lambda _: 1 / 0))
        with pytest.raises(ModelError, match="division by zero"):
            answer(engine, [COPY])
    assert answer(engine, [COPY]) == [before]


def test_no_token_is_longer_than_is_said(backend, base):
    """A text has at least its characters over ``longest_token`` as tokens; a tokenizer that drops some says nothing."""
    from tokenizers import normalizers

    engine = backend()
    longest = engine.longest_token()
    for text in ("x" * 500, "  \n\t" * 100, "é€😀" * 50, "".join(base.tokenizer.all_special_tokens) * 20):
        assert engine.tokens(text) * longest >= len(text)
    lossy = copy.deepcopy(base.tokenizer)
    lossy.backend_tokenizer.normalizer = normalizers.Strip()
    assert longest_token(lossy) is None
