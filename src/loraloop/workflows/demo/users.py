"""Simulated users of the demonstration: they ask a real server, see whether the answer is right, and rate it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from loraloop.client import Client
    from loraloop.records import Example

AT_ONCE = 8
"""Users who wait for an answer at the same time."""
PEOPLE = 40
RIGHT_STARS = ((5, 0.8), (4, 0.15), (3, 0.05))
WRONG_STARS = ((1, 0.5), (2, 0.35), (3, 0.15))
"""What people give for a right and for a wrong answer: mean 4.75 and 1.65."""
CORRECTING = 0.7
"""Share of the badly rated answers that a user also writes the right answer for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a question: the version that answered, whether it was right, and the stars it got."""

    answered: str
    right: bool
    stars: int


@dataclass(frozen=True, slots=True)
class Visit:
    """One question to be asked, and what its user is going to make of the answer."""

    user: str
    conversation: str
    example: Example
    right: int
    wrong: int
    corrects: bool


@dataclass
class Users:
    """People with questions whose right answers they know.

    Attributes:
        url: The server's address.
        role: The agent that they ask.
        examples: What they ask, one after the other, in turn.
        correct: Whether an answer solves an example.
        rng: Decides who asks, who is content with what, and who writes corrections.
    """

    url: str
    role: str
    examples: Sequence[Example]
    correct: Callable[[Example, str], bool]
    rng: np.random.Generator
    _asked: int = 0
    _own: threading.local = field(default_factory=threading.local)

    def visit(self, count: int) -> list[Seen]:
        """Ask and rate ``count`` times.

        Raises:
            openai.APIError: The server did not answer, or would not take a rating.
        """
        visits = list(self._plan(count))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._ask, visits))

    def _plan(self, count: int) -> Iterator[Visit]:
        for _ in range(count):
            number = self._asked
            self._asked += 1
            yield Visit(
                user=f"user-{self.rng.integers(PEOPLE):02d}",
                conversation=f"demo-{number}",
                example=self.examples[number % len(self.examples)],
                right=self._stars(RIGHT_STARS),
                wrong=self._stars(WRONG_STARS),
                corrects=bool(self.rng.random() < CORRECTING),
            )

    def _stars(self, shares: Sequence[tuple[int, float]]) -> int:
        return int(self.rng.choice([stars for stars, _ in shares], p=[share for _, share in shares]))

    def _ask(self, visit: Visit) -> Seen:
        client, example = self._client, visit.example
        client.user, client.conversation = visit.user, visit.conversation
        system = [{"role": "system", "content": example.instruction}] if example.instruction else []
        answer = client.ask(
            [*system, {"role": "user", "content": example.input}], max_tokens=len(example.output) + 8, temperature=0
        )
        right = self.correct(example, answer)
        stars = visit.right if right else visit.wrong
        written = example.output if visit.corrects and not right and stars < 3 else ""
        client.rate(stars, issues=[] if right else ["other"], correction=written)
        return Seen(str(client.answered), right, stars)

    @property
    def _client(self) -> Client:
        """This thread's own connection."""
        from loraloop.client import Client

        if not hasattr(self._own, "client"):
            self._own.client = Client(self.url, agent=self.role)
        found: Client = self._own.client
        return found
