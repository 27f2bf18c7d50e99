"""A session as it is kept, with what people made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraloop.feedback.ratings import Rating


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One session; ``None`` means that its log does not say.

    Attributes:
        time: ISO 8601, UTC, when the request came.
        asked: The model as the client named it.
        answered: ``base`` or the immutable version that answered.
        role: The agent role, where one was asked for.
        prompt: A conversation (``role``, ``content``) or a text.
        iterations: Screens and tool calls, of a session that was imported.
        status: ``ok``, ``error``, ``timeout`` or ``cancelled``.
        duration: Seconds.
        conversation: What the client said that it is part of.
        client: Who asked.
        rollout: Under which rollout the version was chosen.
        rated: ISO 8601, UTC, when a person rated it.
        rating: What a person gave; its ``correction`` is in the table of corrections alone.
        implied: The stars that its course implies.
        correction: What it should have answered, as a person accepted or edited it.
    """

    id: str
    time: str | None = None
    asked: str | None = None
    answered: str | None = None
    role: str | None = None
    prompt: Any
    answer: str | None = None
    iterations: Sequence[Any] | None = None
    status: str | None = None
    duration: float | None = None
    retries: int = 0
    conversation: str | None = None
    client: str | None = None
    rollout: str | None = None
    rated: str | None = None
    rating: Rating | None = None
    implied: int | None = None
    correction: str | None = None

    @property
    def task(self) -> str:
        """What was asked, as text: the turns of a conversation on lines of their own."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(text for _, text in self.turns)

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Who said what."""
        if isinstance(self.prompt, str):
            return [("user", self.prompt)]
        return [(str(turn["role"]), str(turn["content"])) for turn in self.prompt if isinstance(turn, Mapping)]

    @property
    def success(self) -> bool | None:
        """Whether it came to its end."""
        return None if self.status is None else self.status == "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A correction that waits for review.

    Attributes:
        source: ``user``: written on the rating page; ``sibling``: a high-rated answer to the same task.
    """

    id: int
    session: str
    source: str
    text: str
