"""Stage ``feedback``: rate a served answer, and sessions in and out as files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Store
    from loraloop.records import Job, Rating, Session

NEWLINE = "\n"
SUMMED = 74
"""Characters of what was asked, in a list."""
LISTED = 20
SHOWN = 2_000
"""Characters of an answer that are shown before it is rated."""


def feedback(
    job: Job,
    session: str | None,
    rating: int | None,
    comment: str | None,
    issues: Sequence[str] | None,
    correction: str | None,
    export: str | None,
    load: str | None,
    feedback: Feedback,
) -> None:
    """Rate a session, asking on the terminal for what is not given; without a session, list the latest.

    Raises:
        ConfigError: A rating outside 1 to 5, an unknown issue, or a rating that nobody is there to give.
        UnknownSessionError: There is no such session.
        RatedError: It has its rating.
    """
    from loraloop.feedback.store import RatedError

    if load is not None:
        _load(feedback.open(), Path(load).expanduser())
    if export is not None:
        _export(feedback.existing(), Path(export).expanduser())
    if load is None and export is None and session is None:
        _list(feedback.existing())
    if session is not None:
        given = None if rating is None else _checked(rating, comment, issues, correction)
        store = feedback.existing()
        logged = store.session(str(session))
        if logged.rating is not None:
            raise RatedError(logged.id)
        store.rate(logged.id, given or _ask(logged))
        console.facts(f"session {logged.id}", {"answered by": logged.answered or "?", "rating": "kept"})


def _checked(rating: object, comment: str | None, issues: Sequence[str] | None, correction: str | None) -> Rating:
    from loraloop.core.session_file import ISSUES
    from loraloop.feedback.ratings import LONGEST_COMMENT, LONGEST_CORRECTION, clean
    from loraloop.records import Rating

    problems = []
    if isinstance(rating, bool) or not isinstance(rating, int) or not 1 <= rating <= 5:
        problems.append(f"rating={rating}: give 1, 2, 3, 4 or 5 stars")
    wanted = [issues] if isinstance(issues, str) else list(issues or ())
    for issue in wanted:
        if issue not in ISSUES:
            problems.append(
                f"issues={issue}: no such issue{nearest(str(issue), ISSUES)}; there are {', '.join(ISSUES)}"
            )
    texts = {"comment": (clean(str(comment or "")), LONGEST_COMMENT)}
    texts["correction"] = (clean(str(correction or "")), LONGEST_CORRECTION)
    for name, (text, most) in texts.items():
        if len(text) > most:
            problems.append(f"{name} has {len(text)} characters; at most {most} are kept")
    if problems:
        raise ConfigError(*problems)
    return Rating(
        stars=int(str(rating)),
        comment=texts["comment"][0],
        issues=tuple(dict.fromkeys(wanted)),
        correction=texts["correction"][0],
    )


def _ask(logged: Session) -> Rating:
    """Ask whoever sits at the terminal."""
    from rich.prompt import IntPrompt, Prompt

    from loraloop.core.session_file import ISSUES

    if not sys.stdin.isatty():
        raise ConfigError("rating is not given, and this is no terminal to ask on: add rating=1 to rating=5")
    for role, text in [*logged.turns, (logged.answered or "answer", logged.answer or "(empty)")]:
        print(f"{role}:\n{printable(text)[:SHOWN]}\n")
    stars = IntPrompt.ask("stars", choices=["1", "2", "3", "4", "5"])
    for number, label in enumerate(ISSUES.values(), 1):
        print(f"  {number} {label}")
    said = Prompt.ask("what went wrong, such as 1,3", default="nothing")
    words = list(ISSUES)
    issues = [words[int(each) - 1] for each in said.replace(",", " ").split() if each in set("12345")]
    comment = Prompt.ask("comment", default="", show_default=False)
    correction = Prompt.ask("the right answer", default="", show_default=False)
    return _checked(stars, comment, issues, correction)


def printable(text: str) -> str:
    """``text`` without characters that steer a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _list(store: Store) -> None:
    """A line for each session, whose id can be copied, and what was asked below it."""
    print(f"latest sessions in {store.database.name}")
    for logged in store.latest(LISTED):
        stars = f"{logged.rating.stars} stars" if logged.rating else "not rated"
        implied = f"implied {logged.implied}" if logged.implied else ""
        facts = [(logged.time or "")[:19], logged.answered or "", logged.status or "", stars, implied]
        print("  ".join([logged.id, *filter(None, facts)]))
        print(f"    {printable(logged.prompt_text).replace(NEWLINE, ' ')[:SUMMED]}")


def _export(store: Store, folder: Path) -> None:
    from loraloop.feedback import layout

    written, unusable = layout.export(store, folder)
    console.facts(f"sessions of {store.database.name}", {"written": f"{written} to {folder}"})
    console.quarantine(unusable)


def _load(store: Store, folder: Path) -> None:
    from loraloop.feedback import layout

    new, known, broken = layout.load(store, folder)
    console.facts(f"sessions of {folder}", {"kept": f"{new} new, {known} were there, in {store.database.name}"})
    console.quarantine(broken)
