"""Text that comes token by token, and the choice of tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.model.tokenizer import byte_tokenizer
from loraloop.records import GenerationRequest
from loraloop.serve.engine.decoder import StreamDecoder, overlap
from loraloop.serve.engine.sampling import Sampler, choose, likeliest

TOKENIZER = byte_tokenizer()
tokens = st.one_of(
    st.lists(st.integers(0, 258), max_size=80),
    st.text(alphabet="aé€😀\ufffd", max_size=40).map(lambda text: list(text.encode())),
)
stops = st.lists(st.text(alphabet="ab€", min_size=1, max_size=4), max_size=3)


def decode(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=True))


def spoken(ids: list[int], stops: list[str]) -> tuple[list[str], bool]:
    """The chunks of a text, and whether it was stopped."""
    text = StreamDecoder(decode, stops)
    chunks = []
    for token in ids:
        chunks.append(text.add(token))
        if text.stopped:
            return chunks, True
    return [*chunks, text.end()], text.stopped


@given(tokens)
def test_the_pieces_make_the_whole_text(ids):
    """Whatever the bytes, whole characters or not, the chunks are the text that decoding at once gives."""
    chunks, stopped = spoken(ids, [])
    assert "".join(chunks) == decode(ids)
    assert not stopped


@given(st.text(alphabet="aé€😀", max_size=40))
def test_no_character_is_split(text):
    """Of valid UTF-8 no chunk ever holds a replacement character."""
    assert "\ufffd" not in "".join(spoken(list(text.encode()), [])[0][:-1])


@given(st.text(alphabet="ab€", max_size=60), stops)
def test_a_stop_string_ends_the_text_and_is_no_part_of_it(text, stops):
    """What is said is the text up to the stop string that is complete first, which never shows, not even in part."""
    chunks, stopped = spoken(list(text.encode()), stops)
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    said = "".join(chunks)
    assert stopped == bool(ends)
    if not ends:
        assert said == text
        return
    first = min(end for end, _ in ends)
    assert said == text[: min(start for end, start in ends if end == first)]


def test_what_may_begin_a_stop_string_is_held_back():
    """A beginning of a stop string is told only once it turned out to be something else."""
    text = StreamDecoder(decode, ["END"])
    assert [text.add(byte) for byte in b"aENxEND"] == ["a", "", "", "ENx", "", "", ""]
    assert text.stopped


@pytest.mark.parametrize(("text", "stop", "size"), [("abc", "cd", 1), ("ab", "abab", 2), ("ab", "ab", 0), ("", "a", 0)])
def test_the_overlap_is_the_longest_end_that_begins_the_stop(text, stop, size):
    """Only a proper beginning of the stop string counts."""
    assert overlap(text, stop) == size


def sampler(seed: int = 0, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0) -> Sampler:
    return Sampler(temperature, top_p, top_k, np.random.default_rng(seed))


def test_sampling_follows_the_tempered_distribution():
    """2,000 seeds at temperature 0.5 are distributed as the softmax of the doubled logits, by a chi-square test."""
    import torch

    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    drawn = choose(logits.expand(2000, -1), [sampler(seed, temperature=0.5) for seed in range(2000)])
    expected = (logits / 0.5).softmax(-1).numpy() * 2000
    drawn = np.bincount(drawn, minlength=4)
    assert float(((drawn - expected) ** 2 / expected).sum()) < 16.27  # 0.1% of chi-square with 3 degrees of freedom


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.85}, {0, 1}),
        ({"top_p": 0.4}, {0}),
        ({"top_p": 0.0}, {0}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_only_the_likeliest_tokens_are_drawn(settings, kept):
    """``top_k`` keeps so many tokens, ``top_p`` the fewest that hold its mass, and always the likeliest one."""
    import torch

    logits = torch.tensor([[0.5, 0.4, 0.06, 0.04]]).log()
    one = sampler(**settings)
    assert {choose(logits, [one])[0] for _ in range(400)} == kept


def test_a_row_is_drawn_as_it_is_alone():
    """A row's token follows from its logits and its seed, whatever rows stand beside it."""
    import torch

    logits = torch.randn((40, 259), generator=torch.Generator().manual_seed(1))
    samplers = [{"seed": n, "temperature": 0.3 * (n % 5), "top_p": 0.9, "top_k": 30 * (n % 3)} for n in range(40)]
    together = choose(logits, [sampler(**each) for each in samplers])
    assert together == [choose(logits[n : n + 1], [sampler(**each)])[0] for n, each in enumerate(samplers)]
    assert [together[n] for n in range(0, 40, 5)] == logits[::5].argmax(-1).tolist()


def test_a_row_that_is_not_finite_fails_alone():
    """Logits that are not a number give some token, and the other rows theirs."""
    import torch

    logits = torch.tensor([[float("nan")] * 3, [0.0, 90.0, 0.0], [float("inf"), 0.0, 1.0]])
    tokens = choose(logits, [sampler(seed) for seed in range(3)])
    assert tokens[1] == 1
    assert set(tokens) <= {0, 1, 2}


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
def test_extreme_temperatures_give_tokens(temperature):
    """Very low temperatures are as good as greedy, and very high ones still give a token."""
    import torch

    logits = torch.tensor([[1.0, 80.0, -80.0]])
    (token,) = choose(logits, [sampler(temperature=temperature)])
    assert token in range(3)
    assert token == 1 or temperature > 1


def test_log_probabilities_are_the_models_own():
    """Log-probabilities are of the logits as they are, before temperature, and the alternatives the likeliest ones."""
    import torch

    own, top = likeliest(torch.tensor([0.5, 0.2, 0.3]).log(), 1, 2)
    assert own == pytest.approx(math.log(0.2))
    assert [token for token, _ in top] == [0, 2]


def test_an_unseeded_ask_is_drawn_anew():
    """Without a seed, two samplers of one ask draw differently."""
    ask = GenerationRequest(model="base", prompt="x", max_tokens=1)
    assert Sampler.of(ask).rng.random() != Sampler.of(ask).rng.random()
