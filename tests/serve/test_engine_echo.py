"""A prompt's own probabilities, penalties and the bytes of tokens, on the bundled base."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loraloop.core.tokens import encode_prompt
from loraloop.records import GenerationRequest
from loraloop.serve import shapes
from loraloop.serve.engine.token_text import token_text

ASK = GenerationRequest(model="base", prompt="copy\nab\n> ", max_tokens=1, temperature=0.0, logprobs=1, echo=True)


def direct(base, text, **more):
    """Log-probabilities of each token of a text but the first, straight from the model."""
    import torch

    ids = torch.tensor([encode_prompt(base.tokenizer, text)])
    with torch.inference_mode():
        logs = base.model(ids).logits[0].log_softmax(-1)
    return logs[:-1].gather(-1, ids[0, 1:, None])[:, 0].tolist()


def test_an_echo_tells_the_prompts_probabilities(base, backend, answer, versions):
    """The tokens of a prompt have the model's own probabilities, beside an answer of another adapter too."""
    engine = backend(versions["ocr@2"])
    found, other, alone = answer(
        engine, [ASK, replace(ASK, model="ocr@2", prompt="copy\nx\n> "), replace(ASK, max_tokens=0)]
    )
    assert found.text.startswith(ASK.prompt)
    assert found.logprobs[0][1] is None
    assert [own for _, own, _ in found.logprobs[1:-1]] == pytest.approx(direct(base, ASK.prompt), abs=1e-4)
    assert found.tokens == 1
    assert alone.tokens == 0
    assert alone.logprobs == found.logprobs[:-1]
    assert other.logprobs[1][1] != pytest.approx(found.logprobs[1][1], abs=1e-6)


def test_chosen_tokens_are_taken_as_they_are(base, backend, answer):
    """Tokens of a prompt give what their text gives, and their end is told with an echo."""
    ids = tuple(encode_prompt(base.tokenizer, ASK.prompt))
    end = (base.tokenizer.eos_token_id, 100.0)
    found, same = answer(backend(), [ASK, replace(ASK, ids=ids)])
    assert found == same
    (ended,) = answer(backend(), [replace(ASK, bias=(end,))])
    assert (ended.finish, len(ended.logprobs)) == ("stop", len(found.logprobs))


def test_penalties(backend, answer):
    """A strong penalty lets no token come twice; a presence penalty alone does so too, and none leaves the answer."""
    ask = replace(ASK, prompt="copy\naaaaaa\n> ", max_tokens=6, echo=False, logprobs=0)
    free, frequency, presence = answer(
        backend(), [ask, replace(ask, frequency_penalty=100.0), replace(ask, presence_penalty=100.0)]
    )
    assert len(set(free.text)) < len(free.text)
    for found in (frequency, presence):
        tokens = [token for token, _, _ in found.logprobs]
        assert len(set(tokens)) == len(tokens)


def test_a_bias_forbids_and_forces(base, backend, answer):
    """A token with a bias of -100 never comes, one with 100 always does."""
    b = base.tokenizer.encode("b", add_special_tokens=False)[0]
    ask = replace(ASK, max_tokens=3, echo=False)
    forced, forbidden = answer(backend(), [replace(ask, bias=((b, 100.0),)), replace(ask, bias=((b, -100.0),))])
    assert forced.text == "bbb"
    assert "b" not in forbidden.text


def test_the_bytes_of_a_character_in_parts(base):
    """The bytes of the tokens of an emoji are its UTF-8, though no single token is text."""
    ids = base.tokenizer.encode("é😀", add_special_tokens=False)
    found = [shapes._bytes(token_text(base.tokenizer, token)) for token in ids]
    assert b"".join(map(bytes, found)) == "é😀".encode()
