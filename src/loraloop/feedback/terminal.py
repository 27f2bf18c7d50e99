"""Rating sessions on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from loraloop.errors import ConfigError
from loraloop.feedback.issues import unknown
from loraloop.feedback.ratings import LONGEST_COMMENT, LONGEST_CORRECTION, clean
from loraloop.feedback.store import RatedError, Store
from loraloop.records import Rating, Session

NEWLINE = "\n"
SUMMED = 74
"""Characters of what was asked, in a list."""
LISTED = 20
"""Sessions in a list."""
SHOWN = 2_000
"""Characters of an answer that are shown before it is rated."""


def checked(
    rating: object, comment: str | None, issues: Sequence[str] | None, correction: str | None, known: Mapping[str, str]
) -> Rating:
    """The rating that was given on the command line.

    Args:
        rating: Stars.
        comment: In the rater's words.
        issues: Words of what went wrong.
        correction: The right answer.
        known: The issues that there are.

    Raises:
        ConfigError: With every problem: stars outside 1 to 5, an unknown issue, a text that is too long.
    """
    problems = []
    if isinstance(rating, bool) or not isinstance(rating, int) or not 1 <= rating <= 5:
        problems.append(f"rating={rating}: give 1, 2, 3, 4 or 5 stars")
    wanted = [issues] if isinstance(issues, str) else list(issues or ())
    problems += [f"issues={issue}: {unknown(issue, known)}" for issue in wanted if issue not in known]
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


def rate(store: Store, session: Session, given: Rating | None, correction: str | None, known: Mapping[str, str]) -> str:
    """Keep a rating, or a correction for a session that was rated without one, and return the correction.

    Args:
        store: Of the session.
        session: That is rated.
        given: The rating; ``None`` asks for it.
        correction: The right answer.
        known: The issues that there are.

    Raises:
        ConfigError: Nothing is given, and standard input is no terminal.
        RatedError: The session has been rated.
    """
    if session.rating is None:
        rating = given or ask(session, known)
        store.rate(session.id, rating)
        return rating.correction
    if given is not None or not correction:
        raise RatedError(session.id)
    written = checked(session.rating.stars, None, None, correction, known).correction
    store.correct(session.id, written)
    return written


def ask(session: Session, known: Mapping[str, str]) -> Rating:
    """Show a session and ask for its rating.

    Raises:
        ConfigError: Standard input is no terminal.
    """
    from rich.prompt import IntPrompt, Prompt

    if not sys.stdin.isatty():
        raise ConfigError("rating is not given, and this is no terminal to ask on: add rating=1 to rating=5")
    for role, text in [*session.turns, (session.answered or "answer", session.answer or "(empty)")]:
        print(f"{role}:\n{printable(text)[:SHOWN]}\n")
    stars = IntPrompt.ask("stars", choices=["1", "2", "3", "4", "5"])
    issues = _ask_issues(known)
    comment = Prompt.ask("comment", default="", show_default=False)
    correction = Prompt.ask("the right answer", default="", show_default=False)
    return checked(stars, comment, issues, correction, known)


def _ask_issues(known: Mapping[str, str]) -> list[str]:
    from rich.prompt import Prompt

    if not known:
        return []
    words = {str(number): word for number, word in enumerate(known, 1)}
    for number, word in words.items():
        print(f"  {number} {printable(known[word])}")
    said = Prompt.ask("what went wrong, such as 1,3", default="nothing")
    return [words[each] for each in said.replace(",", " ").split() if each in words]


def printable(text: str) -> str:
    """``text`` without characters that steer a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def print_latest(store: Store, own: Callable[[Session], bool], role: str | None = None) -> None:
    """Print the latest sessions: id and facts on one line; below it request, answer and correction.

    Args:
        store: The sessions.
        own: Whether a session is to be listed.
        role: The agent role whose sessions these are, for the title.
    """
    print(f"latest sessions {f'of {role} ' if role else ''}in {store.database.name}")
    waiting = {each.session: each.text for each in store.proposals()}
    listed = store.latest(LISTED, own)
    for session in listed:
        stars = f"{session.rating.stars} stars" if session.rating else "not rated"
        facts = [(session.time or "")[:19], session.role or "", session.answered or "", _ended(session), stars]
        print("  ".join([session.id, *filter(None, facts)]))
        print(f"    asked      {_beginning(session.prompt_text)}")
        print(f"    answered   {_beginning(session.answer or '(empty)')}")
        if session.correction is not None:
            print(f"    corrected  {_beginning(session.correction)}")
        elif session.id in waiting:
            print(f"    correction waits for review (loraloop stage=review): {_beginning(waiting[session.id])}")
    if not listed:
        print("    none")
    if any(session.rating is None for session in listed):
        print('To rate one: loraloop stage=feedback session=ID rating=2 correction="the right answer"')


def _ended(session: Session) -> str:
    if session.status is None or session.duration is None:
        return session.status or ""
    return f"{session.status} in {session.duration:.2g} s"


def _beginning(text: str) -> str:
    return printable(text).strip().replace(NEWLINE, " ")[:SUMMED]
