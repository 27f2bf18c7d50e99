"""Answers in mixed batches are those that each would have alone."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loraloop.errors import ModelError
from loraloop.model.causal import CausalLM
from loraloop.records import GenerationRequest
from loraloop.serve.engine.lora import AdapterStack, LoraAdapter, Update
from loraloop.serve.local import LocalBackend

NAMES = ("base", "ocr@1", "ocr@2", "action@1")
PROMPTS = ("tally A B\nABBA\n> ", "repeat\nHTé01\n> ", "x", "Which vault?\n", "count heads and tails\nHTHHTTHT\n> ")


@pytest.fixture(scope="module")
def shared(base, versions):
    """An engine with every adapter, for tests that only ask."""
    engine = LocalBackend().attach(base)
    engine.start()
    for name, version in versions.items():
        engine.load(name, version)
    yield engine
    engine.close()


def asks(seed: int, count: int, **changes) -> list[GenerationRequest]:
    """Asks of every model, with prompts of 1 to 90 characters and answers of up to 40 tokens."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        noise = "".join(rng.choice(list("tally AB\nHTé01 "), int(rng.integers(0, 60))))
        settings = {
            "model": NAMES[index % len(NAMES)],
            "prompt": noise + str(rng.choice(PROMPTS)),
            "max_tokens": int(rng.integers(1, 40)),
            "temperature": float(rng.choice([0.0, 0.7, 1.5])),
            "top_p": float(rng.choice([1.0, 0.9])),
            "top_k": int(rng.choice([0, 40])),
            "seed": index,
            "logprobs": 3,
        }
        made.append(GenerationRequest(**(settings | changes)))
    return [made[index] for index in rng.permutation(count)]


def arriving(engine, asked: list[GenerationRequest], seed: int, said) -> list:
    """Answers to asks that come one after the other, each once a random earlier one has said so many chunks."""
    rng = np.random.default_rng(seed)

    async def go():
        begun = [asyncio.Event() for _ in asked]

        async def one(index: int):
            if index:
                await begun[int(rng.integers(index))].wait()
            chunks = engine.generate(asked[index])

            async def seen():
                async for chunk in chunks:
                    begun[index].set()
                    yield chunk

            return await said(seen())

        return await asyncio.gather(*map(one, range(len(asked))))

    return asyncio.run(go())


def alike(mixed, alone) -> None:
    """The same texts, ends and counts, and log-probabilities to 1e-4."""
    assert [(each.text, each.finish, each.tokens) for each in mixed] == [
        (each.text, each.finish, each.tokens) for each in alone
    ]
    for one, other in zip(mixed, alone, strict=True):
        for (token, own, top), (same, expected, best) in zip(one.logprobs, other.logprobs, strict=True):
            assert token == same
            assert own == pytest.approx(expected, abs=1e-4)
            assert sorted(top.values()) == pytest.approx(sorted(best.values()), abs=1e-4)


def by_peft(loaded, version, ask: GenerationRequest):
    """What transformers and PEFT answer greedily to one ask on its own: text, and each token's log-probability."""
    import torch
    from peft import PeftModel
    from transformers import GenerationConfig

    model = copy.deepcopy(loaded.model)
    if version is not None:
        model = PeftModel.from_pretrained(model, version.path).eval()
    ids = torch.tensor([loaded.tokenizer(ask.prompt)["input_ids"]])
    greedy = GenerationConfig(do_sample=False, max_new_tokens=ask.max_tokens, eos_token_id=257, pad_token_id=258)
    with torch.no_grad():
        output = model.generate(
            input_ids=ids, generation_config=greedy, output_logits=True, return_dict_in_generate=True
        )
    new = output.sequences[0, ids.shape[1] :].tolist()
    logs = [float(logits[0].log_softmax(-1)[token]) for token, logits in zip(new, output.logits, strict=True)]
    return loaded.tokenizer.decode(new, skip_special_tokens=True), len(new), logs[: len(new) - (new[-1] == 257)]


def test_a_mixed_batch_answers_as_peft_does_alone(backend, base, versions, said):
    """Greedy answers of base and adapters in one batch are those of transformers and PEFT, one by one."""
    engine = backend(*versions.values())
    asked = asks(3, 12, temperature=0.0)
    answers = arriving(engine, asked, 5, said)
    for ask, found in zip(asked, answers, strict=True):
        text, tokens, logs = by_peft(base, versions.get(ask.model), ask)
        assert (found.text, found.tokens) == (text, tokens)
        assert [own for _, own, _ in found.logprobs] == pytest.approx(logs, abs=1e-4)
    assert len({found.text for found in answers}) > 6


def test_sampled_answers_depend_on_their_own_seed_alone(backend, versions, answer, said):
    """Whatever is asked beside it and in whatever order it arrives, an ask gets the answer that it gets alone."""
    engine = backend(*versions.values(), max_batch=5)
    asked = asks(4, 20)
    alone = answer(engine, asked, together=False)
    for seed in range(3):
        alike(arriving(engine, asked, seed, said), alone)
    assert sum(each.tokens for each in alone) > 150


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 9))
def test_any_mixture_is_answered_as_its_parts(shared, answer, said, seed, size):
    """Random asks in a random order of arrival are answered as they are one after the other."""
    asked = asks(seed, size)
    alike(arriving(shared, asked, seed, said), answer(shared, asked, together=False))


def test_another_seed_gives_another_answer(shared, answer):
    """Sampling follows the seed: the same one repeats an answer, others give others."""
    ask = GenerationRequest(model="ocr@2", prompt="repeat\nHT\n> ", max_tokens=12, temperature=1.5)
    texts = [each.text for each in answer(shared, [replace(ask, seed=seed) for seed in (1, 2, 3, 1)])]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3


def test_a_quantised_base_answers_in_a_batch_as_alone(make_version, said, answer, tmp_path):
    """Over an NF4 base, mixed answers are those of PEFT alone, and the base's weights stay as they were packed.

    An adapter of the same base in another block size is refused.
    """
    loaded = CausalLM(name="bundled:tiny", quantization="nf4").load()
    packed = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    version = make_version("ocr@1", tmp_path / "nf4", loaded=loaded, r=8, lora_alpha=16, target_modules="all-linear")
    engine = LocalBackend().attach(loaded)
    engine.start()
    try:
        engine.load("ocr@1", version)
        other = replace(version.manifest, base=replace(version.manifest.base, block_size=128))
        with pytest.raises(ModelError, match="block size 128 there and 64 here"):
            engine.load("ocr@2", replace(version, manifest=other))
        asked = [replace(ask, model=("base", "ocr@1")[n % 2]) for n, ask in enumerate(asks(8, 6, temperature=0.0))]
        answers = arriving(engine, asked, 1, said)
    finally:
        engine.close()
    for ask, found in zip(asked, answers, strict=True):
        text, tokens, logs = by_peft(loaded, version if ask.model == "ocr@1" else None, ask)
        assert (found.text, found.tokens) == (text, tokens)
        assert [own for _, own, _ in found.logprobs] == pytest.approx(logs, abs=1e-4)
    assert all(bool((value == packed[name]).all()) for name, value in loaded.model.state_dict().items())


def test_a_closed_engine_leaves_the_model_as_it_was(backend, base, versions, answer):
    """While adapters answer they stand on the model, and afterwards nothing of them is left on it."""
    engine = backend(*versions.values())
    before = [module.__dict__.get("forward") for module in base.model.modules()]
    answer(engine, asks(2, 8))
    engine.close()
    assert [module.__dict__.get("forward") for module in base.model.modules()] == before == [None] * len(before)
    assert not hasattr(base.model, "peft_config")


def test_what_overflows_in_one_row_stays_there(base):
    """An adapter whose numbers overflow on another row's tokens leaves that row's logits exactly as they are."""
    import torch

    ids = torch.tensor([list(b"open"), list(b"gate")])
    shape = base.model.model.layers[0].self_attn.q_proj.weight.shape
    huge = Update(torch.eye(shape[1]) * 3e38, torch.ones(shape[1], shape[0]))
    stack = AdapterStack(base.model)
    with torch.inference_mode():
        plain = base.model(ids).logits
        stack.hold([None, LoraAdapter("huge@1", {"model.layers.0.self_attn.q_proj": huge})])
        stack.assign([None, *stack._adapters])
        mixed = base.model(ids).logits
        stack.clear()
    assert torch.equal(mixed[0], plain[0])
    assert not torch.equal(mixed[1], plain[1])
