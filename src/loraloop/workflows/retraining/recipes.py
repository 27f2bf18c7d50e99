"""What a cycle learns by: a recipe says which examples rated sessions become, and which trainer takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loraloop.policy import Recipe
from loraloop.source.sessions import Sessions, reading

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from loraloop.policy import Policy
    from loraloop.protocols import Trainer
    from loraloop.records import Example, Session
    from loraloop.source.sessions.source import Labelled

BEST = 5
"""Stars from which a session's answer may correct other sessions of its task."""
GOOD, BAD = 4, 3
"""Stars from which an answer is good, and below which it is bad, where answers teach by their stars."""
TRAINED: tuple[Recipe, ...] = ("sft", "kto", "dpo")
"""What rated sessions become; each is the name of the trainer that takes it."""
MEASURED = "corrections taught most for each rating, and stars or pairs alone nothing certain (docs/loop.md)"
"""Why ``auto`` takes corrections: benchmarks/ratings.py."""
ENOUGH = 500
"""Corrections from which ``auto`` goes on with the champion. Of five seeds of ``source=flips``, 509 to 597 taught it
more than a new adapter on four and as much on the fifth; 126 to 159 did on three, and 29 to 38 on one."""
CONTINUED_RATE = 0.2
"""Share of the trainer's learning rate with which corrections go on: of three, the best one when that was measured."""


@dataclass(frozen=True, slots=True)
class Taught:
    """The rated sessions of a role as one recipe sees them."""

    sessions: Mapping[str, Session]
    labelled: Sequence[Labelled]


def chosen(policy: Policy) -> Recipe:
    """What rated sessions become, one of :data:`TRAINED`."""
    return policy.learn if policy.learn in ("kto", "dpo") else "sft"


def why(policy: Policy) -> str:
    """Why sessions become that, for people."""
    return f"policy.learn=auto: {MEASURED}" if policy.learn == "auto" else f"policy.learn={policy.learn}"


def settle(policy: Policy, corrections: int, misfit: Callable[[], str | None]) -> tuple[Recipe, str]:
    """The recipe in force, and why, for the ledger.

    Args:
        policy: ``auto`` leaves it to the corrections.
        corrections: How many there are to learn from.
        misfit: Why training cannot go on with the champion; ``None`` if it can.
    """
    if policy.learn != "auto":
        return policy.learn, why(policy)
    said = f"{why(policy)}; of {corrections} corrections"
    if corrections < ENOUGH:
        return "sft", f"{said} a new adapter learned as much or more: below {ENOUGH} auto makes one"
    if problem := misfit():
        return "sft", f"{said} the champion would learn more, but cannot go on: {problem}"
    return "sft_continue", f"{said} the champion learned more than a new adapter: from {ENOUGH} on auto goes on with it"


def trainer(recipe: str, configured: Trainer) -> Trainer:
    """The trainer of a cycle: corrections go on with the champion at :data:`CONTINUED_RATE` of its learning rate."""
    if recipe != "sft_continue" or _name(configured) != "sft":
        return configured
    rate = CONTINUED_RATE * configured.learning_rate  # type: ignore[attr-defined]
    return replace(configured, learning_rate=rate)  # type: ignore[type-var]


def source(recipe: Recipe, below: int) -> Sessions:
    """How a recipe reads sessions; those rated under ``below`` stars are corrected.

    ``sft`` learns corrections, ``kto`` answers with the label good or bad, ``dpo`` pairs of a good and a bad answer.
    """
    if recipe == "sft":
        return Sessions(below=below, min_positive_rating=BEST, use=("corrective",), min_corrective=0)
    part = Sessions(below=below, min_positive_rating=max(GOOD, below), rejected_below=BAD, min_corrective=0)
    if recipe == "kto":
        return replace(part, use=("corrective", "positive", "negative"))
    return replace(part, pairs=True)


def read(recipe: Recipe, url: URL, below: int, *, reviewed: bool) -> Taught:
    """The sessions of a database, and what the recipe makes of each.

    Raises:
        DataError: The database cannot be read.
    """
    part = source(recipe, below)
    reader = reading.rated if recipe == "kto" else reading.corrective
    low = part.rejected_below if recipe == "dpo" else below
    sessions, _ = reader(url, low, part.min_positive_rating)
    return Taught(sessions, part.judge(sessions, reviewed=reviewed))


def lacking(recipe: Recipe, examples: Sequence[Example], least: int) -> str | None:
    """What a recipe still needs; ``None`` if there is enough."""
    if recipe != "kto":
        return None if len(examples) >= least else f"{least - len(examples)} more needed"
    good = sum(each.label is True for each in examples)
    missing = {"good": least - good, "bad": least - (len(examples) - good)}
    needed = [f"{count} more {kind} ones" for kind, count in missing.items() if count > 0]
    return f"{' and '.join(needed)} needed" if needed else None


def unit(recipe: Recipe, below: int) -> str:
    """What a recipe counts, in words."""
    return {
        "sft": f"rated below {below} have an answer to learn from",
        "kto": "have an answer that is labelled good or bad by its stars",
        "dpo": "have a bad answer and another, good one to the same task",
    }[recipe]


def misfits(policy: Policy, trainer: object) -> list[str]:
    """Whether the trainer takes what the recipe makes."""
    recipe, found = chosen(policy), _name(trainer)
    answered = found == "grpo"  # it takes an example's answer for the right one, which labels and pairs do not say
    if recipe == found or (recipe == "sft" if answered else found not in TRAINED):
        return []
    return [
        f"policy.learn={policy.learn} makes examples for trainer={recipe}, and trainer={found} is set: write "
        f"trainer={recipe} or policy.learn={'auto' if answered else found}"
    ]


def _name(trainer: object) -> str:
    return type(trainer).__name__.lower()
