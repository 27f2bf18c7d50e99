"""One pass over a row gives the likelihood and the answer that two passes give."""

from __future__ import annotations

import pytest

from loraloop.core.tokens import encode_rows
from loraloop.evaluation.continued import Asked, measure
from loraloop.evaluation.infer import answers, likelihoods


def nothing(_: int) -> None:
    pass


@pytest.fixture
def asked(llama, tokenizer, rows):
    """Rows whose expected answers are random, the model's own, its own up to a token, and its own and more."""
    texts = [row.prompt for row in rows]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    own = answers(llama(), tokenizer, prompts, [1] * len(rows), 12, 4096, nothing)
    expected = [
        (row.completion, answer, answer[:3], f"{answer}aa")[place % 4]
        for place, (row, answer) in enumerate(zip(rows, own, strict=True))
    ]
    pairs = encode_rows(tokenizer, list(zip(texts, expected, strict=True)))
    return [Asked(ids, start, prompt) for (ids, start), prompt in zip(pairs, prompts, strict=True)]


@pytest.mark.parametrize("changes", [{}, {"attn_implementation": "eager"}], ids=["continued", "apart"])
@pytest.mark.parametrize("batch_tokens", [64, 4096])
def test_likelihoods_and_answers_equal_those_of_two_passes(llama, tokenizer, asked, changes, batch_tokens):
    """Answers, counts and, to rounding, likelihoods are those of a pass for each, whatever the expected answers."""
    model = llama(**changes)
    reported: list[int] = []
    nll, tokens, found = measure(model, tokenizer, asked, 12, batch_tokens, reported.append)
    alone_nll, alone_tokens = likelihoods(model, [(row.ids, row.start) for row in asked], batch_tokens, nothing)
    expected = [len(row.ids) - row.start for row in asked]
    assert found == answers(model, tokenizer, [row.prompt for row in asked], expected, 12, batch_tokens, nothing)
    assert tokens == alone_tokens
    assert nll == pytest.approx(alone_nll, abs=1e-4)
    assert sum(reported) == 2 * len(asked)
    assert len({len(answer) for answer in found}) > 3, "answers of one length would prove nothing about stopping"


def test_a_prompt_that_is_asked_otherwise_than_scored_is_asked_as_it_is(llama, tokenizer, asked):
    """A question that lost its beginning is answered without it, while the likelihood is that of the whole row."""
    model = llama()
    cut = [Asked(row.ids, row.start, row.prompt[2:]) for row in asked[:8]]
    nll, _, found = measure(model, tokenizer, cut, 12, 4096, nothing)
    assert found == answers(model, tokenizer, [row.prompt for row in cut], [1] * 8, 12, 4096, nothing)
    assert nll == pytest.approx(likelihoods(model, [(row.ids, row.start) for row in cut], 4096, nothing)[0], abs=1e-4)


def test_layers_that_forget_are_measured_apart(llama, tokenizer, asked):
    """A model with a sliding window gives the answers that it gives when it reads each prompt for them."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(7)
    shape = {name: getattr(llama().config, name) for name in ("vocab_size", "hidden_size", "intermediate_size")}
    config = MistralConfig(
        **shape, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, sliding_window=6, eos_token_id=257,
        initializer_range=0.2,
    )  # fmt: skip
    model = MistralForCausalLM(config)
    expected = [len(row.ids) - row.start for row in asked]
    found = measure(model, tokenizer, asked, 12, 4096, nothing)[2]
    assert found == answers(model, tokenizer, [row.prompt for row in asked], expected, 12, 4096, nothing)
