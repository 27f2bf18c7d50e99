"""Near-duplicates: the candidates that MinHash proposes connect what exact comparison would."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.dataset import similarity
from loraloop.dataset.similarity import near_duplicates, normalise


def article(rng: np.random.Generator, words: int = 80) -> list[str]:
    return [f"word{number}" for number in rng.zipf(1.3, words) % 5000]


def noisy(rng: np.random.Generator, words: list[str], share: float) -> str:
    return " ".join(f"{word}x{rng.integers(10**6)}" if rng.random() < share else word for word in words)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Hello, World!", "hello world"),
        ("ﬁne ＡＢＣ", "FINE abc"),
        ("Straße", "STRASSE"),
        ("code: 4471-A", "Code 4471 A."),
        ("a\u200bb\x00", "ab"),
    ],
)
def test_normalised_texts_ignore_case_width_space_and_punctuation(a, b):
    """Compatibility forms, case, white space, punctuation and control characters do not tell texts apart."""
    assert normalise(a) == normalise(b) != ""


def test_normalised_texts_keep_letters_marks_digits_and_symbols():
    """Vowel signs, accents, digits and symbols do tell texts apart."""
    assert len({normalise(text) for text in ("कि", "की", "a", "á", "1", "2", "a+b", "a=b")}) == 8


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_normalising_letters_once_more_changes_nothing(text):
    """Normalising an ASCII text twice is normalising it once."""
    once = normalise(text.encode("ascii", "ignore").decode())
    assert normalise(once) == once


def test_clusters_are_those_of_the_exact_comparison():
    """On noisy copies of 60 articles the pairs connect at least 99% of what comparing every pair would connect."""
    rng = np.random.default_rng(5)
    texts = sorted({noisy(rng, words, 0.05) for words in (article(rng) for _ in range(60)) for _ in range(5)})
    words = [similarity._words(text) for text in texts]
    exact = [(a, b) for a, b in combinations(range(len(texts)), 2) if similarity._jaccard(words[a], words[b]) >= 0.8]
    pairs = list(near_duplicates(texts))
    assert set(pairs) <= set(exact)
    cluster = list(range(len(texts)))
    for _ in range(5):
        for a, b in pairs:
            cluster[a] = cluster[b] = min(cluster[a], cluster[b])
    assert len(exact) > 200
    assert sum(cluster[a] == cluster[b] for a, b in exact) >= 0.99 * len(exact)


def test_small_alphabets_and_short_texts_are_left_alone():
    """Spaced coin flips and short sentences, which resemble each other by nature, are never near-duplicates."""
    rng = np.random.default_rng(0)
    flips = [" ".join("HT"[bit] for bit in row) for row in rng.integers(2, size=(50, 64))]
    assert list(near_duplicates([*sorted(flips), "the door is open now", "the door is open now!"])) == []
