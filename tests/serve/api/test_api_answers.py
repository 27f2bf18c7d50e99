"""Answers over HTTP, as the official client sees them."""

from __future__ import annotations

import pytest

from loraloop.records import Chunk
from loraloop.serve.shapes import Completion

MESSAGES = [{"role": "user", "content": "one two three"}]


def test_a_chat_answer(shared):
    """The official client, unchanged, gets a chat completion whose model is the immutable version."""
    answer = shared.openai().chat.completions.create(model="ocr@champion", messages=MESSAGES)
    assert answer.choices[0].message.content == "ocr@7 user: one two three "
    assert (answer.object, answer.model, answer.choices[0].finish_reason) == ("chat.completion", "ocr@7", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 5, 10)


def test_usage_tells_what_of_the_prompt_was_read_before(house):
    """Chat, streams and responses tell the tokens that were used again."""
    house.backend.reused = 3
    client = house.openai()
    whole = client.chat.completions.create(model="base", messages=MESSAGES)
    *_, last = client.chat.completions.create(
        model="base", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    response = client.responses.create(model="base", input="one two")
    assert whole.usage.prompt_tokens_details.cached_tokens == 3
    assert last.usage.prompt_tokens_details.cached_tokens == 3
    assert response.usage.input_tokens_details.cached_tokens == 3


def test_a_streamed_chat_answer(shared):
    """The same answer comes piece by piece, with the role first, the reason of the end last, and usage if asked."""
    chunks = list(
        shared.openai().chat.completions.create(
            model="base", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    *pieces, end, usage = chunks
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content for chunk in pieces) == "base user: one two three "
    assert [chunk.choices[0].finish_reason for chunk in (*pieces, end)] == [None] * len(pieces) + ["stop"]
    assert usage.choices == []
    assert usage.usage.completion_tokens == 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_completion(shared):
    """A text is gone on from exactly as it is, at once and streamed alike."""
    client = shared.openai()
    whole = client.completions.create(model="base", prompt="a b")
    assert (whole.object, whole.choices[0].text) == ("text_completion", "base a b ")
    streamed = client.completions.create(model="base", prompt="a b", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "base a b "


def test_max_tokens_ends_an_answer(shared):
    """An answer that reaches its length says so; completions have the API's default of 16 tokens."""
    client = shared.openai()
    short = client.chat.completions.create(model="base", messages=MESSAGES, max_completion_tokens=2)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("base user: ", "length")
    sixteen = client.completions.create(model="base", prompt="x " * 40)
    assert sixteen.usage.completion_tokens == 16


def test_logprobs(shared):
    """Log-probabilities come in the form of either API, and only if asked for."""
    client = shared.openai()
    chat = client.chat.completions.create(model="base", messages=MESSAGES, logprobs=True, top_logprobs=1)
    first = chat.choices[0].logprobs.content[0]
    assert (first.token, first.logprob, first.bytes) == ("base ", -0.5, list(b"base "))
    assert first.top_logprobs[0].logprob == -0.5
    text = client.completions.create(model="base", prompt="a b", logprobs=1).choices[0].logprobs
    assert text.tokens == ["base ", "a ", "b "]
    assert text.text_offset == [0, 5, 7]
    assert client.completions.create(model="base", prompt="a").choices[0].logprobs is None


def test_streamed_logprobs_are_the_same(shared):
    """A stream tells the same log-probabilities, and counts on where each token's text begins."""
    chunks = shared.openai().completions.create(model="base", prompt="a b", logprobs=1, stream=True)
    told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [token for each in told for token in each.tokens] == ["base ", "a ", "b "]
    assert [offset for each in told for offset in each.text_offset] == [0, 5, 7]


def test_where_the_text_of_tokens_begins():
    """A start token that no text has moves nothing, and a character of several tokens is one."""
    tokens = [
        ("<bos>", None, {}),
        ("H\u00e9", -1.0, {}),
        ("bytes:\\xf0\\x9f", -1.0, {}),
        ("bytes:\\x98\\x80", -1.0, {}),
    ]
    form = Completion()
    echoed = form.delta(Chunk(text="H\u00e9\U0001f600", echo=True, logprobs=tuple(tokens)), with_logprobs=True)
    more = form.delta(Chunk(text="!", logprobs=(("!", -1.0, {}),)), with_logprobs=True)
    assert [echoed["logprobs"]["text_offset"], more["logprobs"]["text_offset"]] == [[0, 0, 2, 2], [3]]


def test_sampling_reaches_the_backend(house):
    """Every parameter that is accepted arrives; what is left out has the API's documented value."""
    house.chat(
        temperature=0.3, top_p=0.9, top_k=5, stop=["a", "b"], seed=4, max_tokens=7, logprobs=True, top_logprobs=2
    )
    house.chat(stop="z")
    asked, plain = house.backend.asked
    assert (asked.temperature, asked.top_p, asked.top_k, asked.stop) == (0.3, 0.9, 5, ("a", "b"))
    assert (asked.seed, asked.max_tokens, asked.logprobs, asked.deadline) == (4, 7, 2, 60.0)
    assert (plain.temperature, plain.top_p, plain.top_k, plain.stop, plain.seed) == (1.0, 1.0, 0, ("z",), None)
    assert (plain.max_tokens, plain.logprobs) == (512, None)


def test_parts_of_text_are_lines(shared):
    """A message in parts of text is one text, a part a line; the developer speaks as the system."""
    messages = [
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    ]
    answer = shared.openai().chat.completions.create(model="base", messages=messages)
    assert answer.choices[0].message.content == "base system: be short user: one two "


def test_a_role_answers_and_its_retry_recovers(house):
    """``agent:validator`` is the OCR adapter, and the recovery adapter once the request says that it is a retry."""
    client = house.openai()
    first = client.chat.completions.create(model="agent:validator", messages=MESSAGES)
    again = client.chat.completions.create(model="agent:validator", messages=MESSAGES, metadata={"retries": "1"})
    assert [first.model, again.model] == ["ocr@7", "recovery@2"]
    assert [(kept.role, kept.retries) for kept in house.sessions.kept] == [("validator", 0), ("validator", 1)]


def test_models(shared):
    """The base, and every role that leads somewhere; an adapter names its base as parent."""
    models = {model.id: model for model in shared.openai().models.list()}
    assert {"base", "agent:validator", "agent:recovery"} <= models.keys()
    assert "agent:actor" not in models, "it leads to no registered version"
    assert models["base"].parent is None
    assert (models["agent:validator"].root, models["agent:validator"].parent) == ("ocr@7", "base")
    assert shared.openai().models.retrieve("ocr@champion").root == "ocr@7"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json", "/metrics"])
def test_the_state_is_told(shared, path):
    """Health, readiness, metrics and the document have an address."""
    assert shared.get(path).status_code == 200
