"""Made-up users: sessions, their success, and the stars that people give them, all from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from loraloop.core.part import part

STARS = np.arange(1, 6)
COMMON = np.array([0.08, 0.08, 0.16, 0.28, 0.40])
"""How often people give 1 to 5 stars: mostly many, some few, little between (a J, as ratings on the web have)."""


@part
class Quality:
    """What a version is worth to people.

    Attributes:
        success: Share of sessions that come to their end.
        stars: Mean of what people give.
    """

    success: Annotated[float, Field(gt=0, lt=1)]
    stars: Annotated[float, Field(gt=1.2, lt=4.9)]


@dataclass(frozen=True, slots=True)
class Visits:
    """Who comes, with what, in what mood; arrays of runs x ticks x sessions.

    Attributes:
        talk: Number of the conversation within its tick, from 0.
        rater: Number of the person.
        mood: Uniform on 0..1: what the session's outcome is, given the version.
        hostile: Whether the person gives one star to everything.
        rated: Whether the session is rated.
    """

    talk: NDArray[np.int64]
    rater: NDArray[np.int64]
    mood: NDArray[np.float32]
    hostile: NDArray[np.bool_]
    rated: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of visits, of their shape; ``stars`` is NaN where nobody rated."""

    success: NDArray[np.bool_]
    stars: NDArray[np.float32]


def chances(mean: ArrayLike) -> NDArray[np.float64]:
    """Probabilities of 1 to 5 stars for each mean: :data:`COMMON`, tilted exponentially until it has that mean."""
    mean = np.asarray(mean, dtype=float)
    low, high = np.full(mean.shape, -20.0), np.full(mean.shape, 20.0)
    for _ in range(50):  # halvings
        tilt = (low + high) / 2
        found = COMMON * np.exp(tilt[..., None] * (STARS - 3))
        found /= found.sum(axis=-1, keepdims=True)
        short = found @ STARS < mean
        low, high = np.where(short, tilt, low), np.where(short, high, tilt)
    return np.asarray(found)


@part
class SimulatedUsers:
    """People who use a service and rate it.

    Sessions of a conversation, and conversations of a person, resemble each other with an exact intra-class
    correlation: with the square root of it as probability, each takes on the mood of the whole. One mood decides both
    what becomes of a session and how it is rated: the unluckiest fail and get the fewest stars.

    Attributes:
        sessions: A tick.
        rated: Share of the sessions that somebody rates.
        talk: Mean number of sessions of a conversation; their numbers are geometric.
        talk_icc: Correlation of two sessions of a conversation.
        raters: How many people there are; each conversation has one.
        rater_icc: Correlation of two conversations of a person.
        hostile: Share of the people who give one star to everything.
        drift: Stars by which both versions' ratings change over the whole time, linearly.
    """

    sessions: Annotated[int, Field(ge=1, le=100_000)] = 67
    rated: Annotated[float, Field(gt=0, le=1)] = 1.0
    talk: Annotated[float, Field(ge=1, le=1000)] = 1.0
    talk_icc: Annotated[float, Field(ge=0, lt=1)] = 0.0
    raters: Annotated[int, Field(ge=1)] = 200
    rater_icc: Annotated[float, Field(ge=0, lt=1)] = 0.0
    hostile: Annotated[float, Field(ge=0, le=1)] = 0.0
    drift: Annotated[float, Field(gt=-4, lt=4)] = 0.0

    def visit(self, runs: int, ticks: int, rng: Generator) -> Visits:
        """Draw who comes."""
        shape = (runs, ticks, self.sessions)
        first = rng.random(shape, dtype=np.float32) < 1 / self.talk
        first[..., 0] = True
        talk = np.cumsum(first, axis=-1) - 1
        rater = np.take_along_axis(rng.integers(self.raters, size=shape), talk, -1)
        rated = rng.random(shape, dtype=np.float32) < self.rated
        return Visits(talk, rater, self._moods(talk, rater, rng), rater < round(self.hostile * self.raters), rated)

    def answer(self, visits: Visits, stable: Quality, candidate: Quality, canary: NDArray[np.bool_]) -> Answers:
        """What comes of ``visits`` where the candidate answers those in ``canary``, and the stable version the rest."""
        ticks = visits.mood.shape[1]
        limits = np.stack([self._limits(quality, ticks) for quality in (stable, candidate)])
        mine = limits[canary.astype(int), np.arange(ticks)[None, :, None]]
        stars = 1 + (visits.mood[..., None] >= mine[..., 1:]).sum(axis=-1).astype(np.float32)
        stars[visits.hostile] = 1
        stars[~visits.rated] = np.nan
        return Answers(visits.mood >= mine[..., 0], stars)

    def _moods(self, talk: NDArray[np.int64], rater: NDArray[np.int64], rng: Generator) -> NDArray[np.float32]:
        """Uniform on 0..1, shared within conversations and persons as often as the correlations ask for."""
        shape = talk.shape
        mood = rng.random(shape, dtype=np.float32)
        persons = rng.random((shape[0], self.raters), dtype=np.float32)
        own = persons[np.arange(shape[0])[:, None, None], rater]
        mood = np.where(rng.random(shape, dtype=np.float32) < self.rater_icc**0.5, own, mood)
        common = np.take_along_axis(rng.random(shape, dtype=np.float32), talk, -1)
        return np.where(rng.random(shape, dtype=np.float32) < self.talk_icc**0.5, common, mood)

    def _limits(self, quality: Quality, ticks: int) -> NDArray[np.float32]:
        """For every tick, the moods below which a session fails, and from which it gets 2, 3, 4, 5 stars."""
        stars = np.clip(quality.stars + self.drift * np.linspace(0, 1, ticks), 1.2, 4.9)
        steps = np.cumsum(chances(stars), axis=-1)[:, :4]
        return np.concatenate([np.full((ticks, 1), 1 - quality.success), steps], axis=1).astype(np.float32)
