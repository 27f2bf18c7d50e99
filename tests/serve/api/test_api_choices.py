"""Several choices, lists of prompts, echo and the probabilities of tokens, as the official client sees them."""

from __future__ import annotations

import openai
import pytest

MESSAGES = [{"role": "user", "content": "one two"}]


def test_several_choices_are_sessions_of_their_own(shared):
    """``n`` choices have their places, each is kept and rated by itself, and the prompt's tokens count once."""
    before = len(shared.sessions.kept)
    answer = shared.openai().chat.completions.create(model="base", messages=MESSAGES, n=3, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    sessions = [choice.loraloop["session"] for choice in answer.choices]
    assert {kept.id for kept in shared.sessions.kept[before:]} == set(sessions)
    assert answer.loraloop["session"] == sessions[0]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 12)
    assert sorted(request.seed for request in shared.backend.asked[-3:]) == [5, 6, 7]
    assert answer.system_fingerprint.startswith("fp_")


def test_several_choices_are_streamed_together(shared):
    """Each choice of a stream has its role, its text and its end, under its own index."""
    chunks = list(
        shared.openai().chat.completions.create(
            model="base", messages=MESSAGES, n=2, stream=True, stream_options={"include_usage": True}
        )
    )
    *pieces, usage = chunks
    assert usage.usage.completion_tokens == 8
    for place in (0, 1):
        mine = [chunk.choices[0] for chunk in pieces if chunk.choices[0].index == place]
        assert mine[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in mine) == "base user: one two "
        assert [choice.finish_reason for choice in mine if choice.finish_reason] == ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_list_of_prompts(shared):
    """Each prompt of a list, text or tokens, has its choices in the list's order."""
    complete = shared.openai().completions.create
    texts = complete(model="base", prompt=["a", "b c"], n=2)
    assert [choice.text for choice in texts.choices] == ["base a ", "base a ", "base b c ", "base b c "]
    assert texts.usage.prompt_tokens == 2 + 3
    tokens = complete(model="base", prompt=[[1, 2], [3]])
    assert [choice.text for choice in tokens.choices] == ["base 1 2 ", "base 3 "]
    assert [kept.prompt for kept in shared.sessions.kept[-2:]] == ["1 2", "3"]
    assert tokens.usage.prompt_tokens == 3


def test_tokens_outside_the_vocabulary_are_refused(shared):
    """A token that does not exist is an error that names its parameter, in a prompt and in ``logit_bias``."""
    complete = shared.openai().completions.create
    for more, param in (({"prompt": [1000]}, "prompt"), ({"prompt": "a", "logit_bias": {"1000": 1}}, "logit_bias")):
        with pytest.raises(openai.BadRequestError) as caught:
            complete(model="base", **more)
        assert caught.value.param == param


def test_an_echo(shared):
    """The prompt comes back before the answer with its tokens' probabilities, and alone with ``max_tokens=0``."""
    complete = shared.openai().completions.create
    (choice,) = complete(model="base", prompt="a b", echo=True, logprobs=1, max_tokens=1).choices
    assert choice.text == "a bbase "
    assert choice.logprobs.token_logprobs == [None, -0.5, -0.5]
    assert choice.logprobs.top_logprobs[0] is None
    assert shared.sessions.kept[-1].answer == "base "
    alone = complete(model="base", prompt="a b", echo=True, logprobs=1, max_tokens=0)
    assert (alone.choices[0].text, alone.choices[0].finish_reason) == ("a b", "length")
    assert alone.usage.completion_tokens == 0
    assert shared.sessions.kept[-1].status == "ok"


def test_a_choice_that_fails_fails_the_request(build):
    """When one of several answers cannot be given, the client gets the error, and every session is kept."""
    house = build()
    house.backend.places = 1
    answer = house.chat(n=3)
    assert answer.status_code == 429
    assert house.backend.answering == 0


def test_what_shapes_the_next_token_reaches_the_backend(shared):
    """Penalties and the bias of tokens are those of the request."""
    shared.chat(frequency_penalty=0.5, presence_penalty=-1, logit_bias={"7": -100}, n=None)
    asked = shared.backend.asked[-1]
    assert (asked.frequency_penalty, asked.presence_penalty, asked.bias) == (0.5, -1, ((7, -100.0),))
