"""Plain English for made pages, in two vocabularies that share only the commonest words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words by their place in a sentence."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    places: tuple[str, ...]
    names: tuple[str, ...]


def _words(text: str, separator: str = " ") -> tuple[str, ...]:
    return tuple(text.split(separator))


FIRST = Vocabulary(
    adjectives=_words(
        "annual brief careful common early exact final formal general heavy large local modern narrow official plain "
        "public quiet recent regular second simple steady sudden useful usual wide written young yearly"
    ),
    nouns=_words(
        "account agreement bridge builder captain chapter city company council country engine farmer figure garden "
        "harbour journey kitchen letter library market meeting merchant minister mountain office owner paper picture "
        "question railway reason report river school season station student teacher village window worker"
    ),
    verbs=_words(
        "accepted answered bought carried changed compared described explained followed improved measured needed "
        "opened ordered prepared received recorded remembered repaired replaced visited"
    ),
    places=_words(
        "after the war; at the market; before noon; by the river; during the winter; in the old town; near the "
        "station; on Monday; under the bridge; with great care; without delay; for two years",
        "; ",
    ),
    names=_words("Invoice Customer Address Telephone Date Order Amount Status Country Remarks"),
)
SECOND = Vocabulary(
    adjectives=_words(
        "ancient bright calm clever cold deep distant double dry empty fair famous flat foreign fresh gentle golden "
        "hidden honest humble joint long loose mild native northern proper rapid royal sharp silver smooth"
    ),
    nouns=_words(
        "artist battery camera ceiling colony command concert desert doctor dragon factory feather forest furnace "
        "gallery hunter island jacket knight lawyer machine method museum needle novel ocean orchard pattern planet "
        "pocket printer prize record shadow signal soldier spirit supper temple ticket tower valley vessel"
    ),
    verbs=_words(
        "adopted borrowed collected covered crossed defended delivered divided examined finished guarded imagined "
        "invented joined judged launched painted polished praised protected released scattered studied tested"
    ),
    places=_words(
        "above the valley; across the ocean; against all advice; among friends; at first light; beyond the hills; "
        "for a silver coin; in the spring; on the third floor; until Friday; with a sharp knife; within a week",
        "; ",
    ),
    names=_words("Member Reference Street Mobile Signed Quantity Balance Priority Region Comments"),
)


class Prose:
    """Text of a kind, drawn from a vocabulary and a generator."""

    def __init__(self, vocabulary: Vocabulary, rng: Generator) -> None:
        self._words, self._rng = vocabulary, rng

    def sentence(self) -> str:
        """One sentence of 8 to 20 words, some with a number."""
        text = f"the {self._one('adjectives')} {self.noun()} {self._one('verbs')} the {self.noun()}"
        form = int(self._rng.integers(4))
        if form == 0:
            text = f"{self._one('places')}, {text}"
        elif form == 1:
            text += (
                f" {self._one('places')}, but the {self.noun()} {self._one('verbs')} a {self._one('adjectives')} one"
            )
        elif form == 2:
            many = f"{self.number(2, 900)} of the {self._one('adjectives')} {self.noun()}s"
            text += f" and {self._one('verbs')} {many}"
        else:
            text += f" {self._one('places')}"
        return text[0].upper() + text[1:] + ("." if self._rng.integers(8) else "?")

    def paragraph(self, sentences: int) -> str:
        """Several sentences."""
        return " ".join(self.sentence() for _ in range(sentences))

    def title(self) -> str:
        """Three to four words, capitalised."""
        return f"The {self._one('adjectives').title()} {self.noun().title()} and the {self.noun().title()}"

    def label(self) -> str:
        """The name of a field."""
        return self._one("names")

    def labels(self, count: int) -> list[str]:
        """Different names of fields."""
        chosen = self._rng.permutation(len(self._words.names))[:count]
        return [self._words.names[index] for index in chosen]

    def noun(self) -> str:
        """One noun."""
        return self._one("nouns")

    def entry(self) -> str:
        """What stands in a field or a cell: a few words, a date, a number or a code."""
        form = int(self._rng.integers(4))
        if form == 0:
            return f"{self._one('adjectives').title()} {self.noun()}"
        if form == 1:
            return f"{self.number(1, 28):0>2}.{self.number(1, 12):0>2}.20{self.number(10, 29)}"
        if form == 2:
            return self.price()
        return f"{self.noun().title()} {self.number(100, 9999)}"

    def price(self) -> str:
        """An amount of money."""
        return f"{self.number(1, 990)}.{int(self._rng.integers(100)):02d}"

    def number(self, low: int, high: int) -> str:
        """A whole number from ``low`` to ``high``."""
        return str(int(self._rng.integers(low, high + 1)))

    def _one(self, kind: str) -> str:
        words: Sequence[str] = getattr(self._words, kind)
        return words[int(self._rng.integers(len(words)))]
