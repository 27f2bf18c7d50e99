"""A served answer, what people said of it, and what a rollout makes of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

FrozenMap = Mapping[str, Any]
Agent = Literal["validator", "actor", "coordinator", "recovery"]
AGENTS: tuple[str, ...] = get_args(Agent)
"""The roles that ``session.json`` can name, and that examples of sessions are sliced by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What a person thinks of an answer.

    Attributes:
        stars: 1 to 5.
        issues: What went wrong: words such as ``timeout``; an imported session may bring others.
        correction: The answer as it should have been; nothing is trained on it before it was reviewed.
    """

    stars: int
    comment: str = ""
    issues: tuple[str, ...] = ()
    correction: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One served conversation, and what people made of it (promise L1). ``None`` means: not known. Times in seconds.

    The server makes it of an answer, the store keeps it and adds what came later, ``session.json`` carries it, and
    training reads it.

    Attributes:
        id: Unique; part of the rating link.
        prompt: The conversation in OpenAI's form, or the text that was to be completed, as plain JSON.
        tools: JSON schemas of the tools that were offered.
        time: ISO 8601, UTC, when the request came.
        asked: The model as the client named it: ``base``, ``ocr@champion``, ``agent:validator``.
        answered: What answered: ``base`` or an immutable version such as ``ocr@7``.
        role: The agent role, where one was asked for.
        answer: The text that was given.
        iterations: Screens and tool calls, of an imported session: the JSON of its log.
        status: ``ok``, ``error``, ``timeout`` or ``cancelled``.
        duration: From the request to the last token.
        first_token: From the request to the first token.
        retries: Which repetition of the same task this was; 0 for the first.
        conversation: What the client says its request is part of; a rollout answers all of it with one version.
        conversation_id: What the store found it to be part of; ``None`` before it is kept, and in older tables.
        follows: The session whose answer the request says that it goes on from; the store links by it and forgets it.
        client: Who asked: what the request says of its user, else the name of the key.
        asked_key: Name of the API key that the request came with.
        rated_key: Name of the API key that the rating came with; a rating link needs none.
        refused: Corrections that a person rejected in review, or replaced by other words.
        rollout: Under which rollout ``answered`` was chosen.
        rating: What a person gave; as the store returns it, without the correction, which may wait for review.
        rated: ISO 8601, UTC, when they gave it.
        implied: The stars that status, duration and retries imply (promise L2).
        correction: What it should have answered, as a person accepted or edited it.
    """

    id: str
    prompt: Any
    time: str | None = None
    asked: str | None = None
    answered: str | None = None
    role: str | None = None
    answer: str | None = None
    iterations: Sequence[Any] | None = None
    status: str | None = None
    duration: float | None = None
    first_token: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    retries: int = 0
    tools: Any = None
    conversation: str | None = None
    client: str | None = None
    rollout: str | None = None
    rating: Rating | None = None
    rated: str | None = None
    implied: int | None = None
    correction: str | None = None
    asked_key: str | None = None
    rated_key: str | None = None
    refused: tuple[str, ...] = ()
    conversation_id: str | None = None
    follows: str | None = None

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Role and text of every message; a prompt is one of the user."""
        if isinstance(self.prompt, str):
            return [("user", self.prompt)]
        return [
            (str(turn["role"]), str(turn.get("content") or "")) for turn in self.prompt if isinstance(turn, Mapping)
        ]

    @property
    def instruction(self) -> str:
        """The system messages on lines of their own; empty where there is no other message."""
        return self._parts[0]

    @property
    def task(self) -> str:
        """The other messages on lines of their own; the system messages where there is no other one."""
        return self._parts[1]

    @property
    def _parts(self) -> tuple[str, str]:
        system = "\n".join(text for role, text in self.turns if role == "system")
        others = "\n".join(text for role, text in self.turns if role != "system")
        return (system, others) if others else ("", system)

    @property
    def prompt_text(self) -> str:
        """The whole prompt, its messages on lines of their own."""
        return "\n".join(text for _, text in self.turns)

    @property
    def agent(self) -> str | None:
        """The role, where it is one of :data:`AGENTS`."""
        return self.role if self.role in AGENTS else None

    @property
    def stars(self) -> int | None:
        """What a person gave, 1 to 5."""
        return None if self.rating is None else self.rating.stars

    @property
    def issues(self) -> tuple[str, ...]:
        """What went wrong, as the person who rated it put it."""
        return () if self.rating is None else self.rating.issues

    @property
    def success(self) -> bool | None:
        """Whether it came to its end."""
        return None if self.status is None else self.status == "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A session without its texts, with what is missing filled in: what rules and simulations decide on.

    A rule looks at tens of thousands of them at once, and the simulation makes them up without any conversation.
    :func:`loraloop.feedback.outcomes.outcome` derives them from sessions, and nothing else does.

    Attributes:
        time: ISO 8601, UTC, when the request came.
        conversation: Sessions of one conversation are not independent of each other; a session on its own is its own.
        rater: Who rated, or would have; ``None`` where nobody knows.
        answered: ``base`` or an immutable version such as ``ocr@7``.
        rollout: Under which rollout ``answered`` was chosen.
        success: Whether it came to its end; ``None`` if the client left, which says nothing.
        stars: What a person gave, 1 to 5.
        rated: ISO 8601, UTC, when they gave it; ``None`` where nobody knows, which is taken for ``time``.
        duration: Seconds.
    """

    session: str
    time: str
    conversation: str
    rater: str | None
    answered: str
    rollout: str | None = None
    success: bool | None = None
    stars: int | None = None
    rated: str | None = None
    duration: float | None = None

    @property
    def version(self) -> int:
        """Number of the version that answered; 0, which no version has, where it was none."""
        found = self.answered.rpartition("@")[2]
        return int(found) if found.isdecimal() and len(found) < 19 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Which sessions a trigger looks at; without a bound, all of them.

    Attributes:
        rated_since: ISO 8601, UTC: those that were rated then or later.
        latest: The latest so many.
    """

    rated_since: str | None = None
    latest: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A canary: a share of conversations is answered by a new version, the others by the stable one (promise L5).

    Attributes:
        model: The registered model that both are versions of.
        share: Of the conversations that the canary answers, in 0..1.
        began: ISO 8601, UTC.
    """

    id: str
    role: str
    model: str
    stable: int
    canary: int
    share: float
    began: str

    def version(self, conversation: str) -> int:
        """The version that answers ``conversation``: always the same one, whoever asks and on whichever server."""
        digest = hashlib.sha256(f"{self.id}|{conversation}".encode()).digest()
        return self.canary if int.from_bytes(digest[:8], "big") < self.share * 2**64 else self.stable


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryVerdict:
    """What a canary's rule says, with the reason in one sentence and the numbers that it was taken on.

    ``wait``: go on as it is. ``stop``: end without a promotion (too little data, inconclusive at the cap, or an
    assignment that is not as it was meant), which somebody should look at.
    """

    action: Literal["promote", "rollback", "wait", "stop"]
    reason: str
    numbers: FrozenMap
