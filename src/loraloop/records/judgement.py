"""What a judge, a model, said of an answer, and what it cost to ask."""

from __future__ import annotations

from dataclasses import dataclass

NONSENSE, NO_ANSWER, REFUSED, OVER_BUDGET = "nonsense", "no answer", "refused", "over budget"
"""Why there is no value: an answer that is none of those asked for, none in time, an error, or no call left."""

SCORE, PAIR = "score", "pair"
"""What a judge was asked, in an assessment's name before the colon; after it stands the judge's rule."""

JUDGE = "loraloop judge"
"""How a judge names itself as the user of a server: one of loraloop keeps its questions as sessions of that client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A judge's answer to one question; without a ``value`` it is a failure, never a rating.

    Attributes:
        value: A score of 1 to 5; of two answers ``first``, ``second`` or ``tie``.
        reason: In the judge's words; empty where it is ``cached``.
        failed: Why there is no value; empty where there is one.
        detail: What went wrong, for people.
        calls: Requests that were sent for it, retries included.
        tokens: Of the prompts and answers, as the server counts them.
        seconds: That the requests took.
        cached: Whether it was asked before, and not now.
    """

    value: int | str | None
    reason: str = ""
    failed: str = ""
    detail: str = ""
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cached: bool = False
