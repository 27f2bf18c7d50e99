"""Rating sessions on a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from loraloop.errors import ConfigError
from loraloop.feedback import transcript
from loraloop.feedback.issues import unknown
from loraloop.feedback.ratings import LONGEST_COMMENT, LONGEST_CORRECTION, clean
from loraloop.feedback.store import Level, RatedError, Store
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


def level(given: object) -> Level:
    """What is to be rated.

    Raises:
        ConfigError: It is neither an answer nor a conversation.
    """
    for known in get_args(Level):
        if given == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"level={given}: give answer, or conversation for all of it")


def rate(
    store: Store,
    session: Session,
    given: Rating | None,
    correction: str | None,
    known: Mapping[str, str],
    level: Level = "answer",
) -> str:
    """Keep a rating, or a correction for a session that was rated without one, and return the correction.

    Args:
        store: Of the session.
        session: That is rated.
        given: The rating; ``None`` asks for it.
        correction: The right answer.
        known: The issues that there are.
        level: What is rated; a conversation has no correction.

    Raises:
        ConfigError: Nothing is given, and standard input is no terminal; or a correction for a conversation.
        RatedError: The session, or its conversation, has been rated.
    """
    if level == "conversation" and correction:
        raise ConfigError("correction belongs to one answer: give it without level=conversation")
    if store.rated(session, level) is None:
        rating = given or ask(session, known, level)
        store.rate(session.id, rating, level=level)
        return rating.correction
    if level == "conversation":
        raise RatedError(session.id, level)
    if session.rating is None or given is not None or not correction:
        raise RatedError(session.id)
    written = checked(session.rating.stars, None, None, correction, known).correction
    store.correct(session.id, written)
    return written


def ask(session: Session, known: Mapping[str, str], level: Level = "answer") -> Rating:
    """Show a session, its tool calls and their results included, and ask for its rating.

    Raises:
        ConfigError: Standard input is no terminal.
    """
    from rich.prompt import IntPrompt, Prompt

    if not sys.stdin.isatty():
        raise ConfigError("rating is not given, and this is no terminal to ask on: add rating=1 to rating=5")
    for turn in [*transcript.past(session), transcript.answer(session)]:
        said = [turn.text] if turn.text or not turn.calls else []
        lines = NEWLINE.join([*said, *(f"calls {call}" for call in turn.calls)]) or "(empty)"
        print(f"{printable(turn.title)}:\n{printable(lines)[:SHOWN]}\n")
    stars = IntPrompt.ask(f"stars for the {level}", choices=["1", "2", "3", "4", "5"])
    issues = _ask_issues(known)
    comment = Prompt.ask("comment", default="", show_default=False)
    correction = Prompt.ask("the right answer", default="", show_default=False) if level == "answer" else ""
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
    together, signals = _conversations(store, listed), store.signals(listed)
    for session in listed:
        stars = f"{session.rating.stars} stars" if session.rating else "not rated"
        facts = [(session.time or "")[:19], session.role or "", session.answered or "", _ended(session), stars]
        print("  ".join([session.id, *filter(None, facts)]))
        if session.id in together:
            print(f"    conversation  {together[session.id]}")
        print(f"    asked      {_beginning(_asked(session))}")
        print(f"    answered   {_beginning(session.answer or '(empty)')}")
        if session.id in signals:
            print(f"    next turn  {signals[session.id]}")
        if session.correction is not None:
            print(f"    corrected  {_beginning(session.correction)}")
        elif session.id in waiting:
            print(f"    correction waits for review (loraloop stage=review): {_beginning(waiting[session.id])}")
    if not listed:
        print("    none")
    if any(session.rating is None for session in listed):
        print('To rate one: loraloop stage=feedback session=ID rating=2 correction="the right answer"')
    if together:
        print("To rate a whole conversation, name any of its answers: ... session=ID level=conversation rating=2")


def _conversations(store: Store, listed: Sequence[Session]) -> dict[str, str]:
    """What is said of the conversation of each listed session that has others in it, by the session's id."""
    sizes = Counter(each.conversation_id for each in listed)
    ratings = store.conversation_ratings(listed)
    return {
        each.id: f"{each.conversation_id}  {f'{ratings[each.id].stars} stars' if each.id in ratings else 'not rated'}"
        for each in listed
        if each.conversation_id is not None and (sizes[each.conversation_id] > 1 or transcript.goes_on(each))
    }


def _asked(session: Session) -> str:
    """What was asked last, where the conversation had begun before; otherwise all that was asked."""
    return transcript.past(session)[-1].text if transcript.goes_on(session) else session.prompt_text


def _ended(session: Session) -> str:
    if session.status is None or session.duration is None:
        return session.status or ""
    return f"{session.status} in {session.duration:.2g} s"


def _beginning(text: str) -> str:
    return printable(text).strip().replace(NEWLINE, " ")[:SUMMED]
