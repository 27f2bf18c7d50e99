"""Deciding on proposed corrections on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from loraloop.core import console
from loraloop.errors import DataError
from loraloop.feedback import decisions, edit
from loraloop.feedback.changes import answer, changes, readable
from loraloop.feedback.decisions import Reviewed
from loraloop.feedback.ratings import clean
from loraloop.feedback.review_queue import Item, gone
from loraloop.feedback.store import Proposal, Store
from loraloop.feedback.terminal import printable
from loraloop.feedback.words import Piece
from loraloop.records import Session

CHOICES: Mapping[str, Reviewed | None] = {"a": "accepted", "e": "edited", "r": "rejected", "s": None, "q": None}
"""Keys, and what each decides; the last two decide nothing."""
MARKS: Mapping[str, str] = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}"}
"""What stands around a piece of the difference, as in git's ``--word-diff``."""
LEGEND = "Corrections are shown by what they change in the answer: [-removed-] {+added+}"


def print_waiting(store: Store, waiting: Sequence[Item]) -> None:
    """Print every proposal that waits, and how to decide on it."""
    print(LEGEND)
    for number, item in enumerate(waiting, 1):
        _show(store, item, f"{number} of {len(waiting)}")
    print("To decide: loraloop stage=review in a terminal, or accept=[1,2] reject=[3], or accept=all.")


def print_none(store: Store, below: int, own: Callable[[Session], bool]) -> None:
    """Print that nothing waits, and how many badly rated sessions have a correction and how many could get one."""
    print("no correction waits for review")
    bad = [each for each in store.all(rated_below=below) if own(each)]
    decided = sum(each.correction is not None for each in bad)
    if decided:
        print(f"sessions rated below {below} with an accepted correction: {decided}")
    if len(bad) > decided:
        print(
            f"sessions rated below {below} without a correction: {len(bad) - decided}; to write one: "
            'loraloop stage=feedback session=ID correction="..." (stage=feedback lists them)'
        )


def decide_each(store: Store, waiting: Sequence[Item]) -> None:
    """Show one proposal after the other and ask what to do with it."""
    print(LEGEND)
    for number, item in enumerate(waiting, 1):
        if item.proposal not in store.proposals():  # decided on meanwhile, or its session has a correction by now
            continue
        _show(store, item, f"{number} of {len(waiting)}")
        if not _decide(store, item):
            break
    print(f"{len(store.proposals())} wait for review")


def keep(store: Store, proposal: Proposal, reviewed: Reviewed, text: str | None = None) -> bool:
    """Keep a decision. Where somebody else was faster, print what was decided, and ``text``, which is not to be lost.

    Returns:
        Whether it was kept.
    """
    try:
        store.decide(proposal.id, reviewed, text)
    except DataError:
        _print_late(store, proposal)
        if text is not None:
            print(f"what you wrote was not kept:\n{printable(text)}")
        return False
    return True


def _print_late(store: Store, proposal: Proposal) -> None:
    with store.database.read() as connection:
        made = decisions.decision(connection, proposal.id)
    if made is None:
        reason, newer = gone(store, proposal.session)
        print(f"proposal {proposal.id} waits no longer: {reason}" + (f" Proposal {newer} waits now." if newer else ""))
        return
    which = f"proposal {proposal.id}"
    if made.proposal != proposal.id:
        which = f"another correction of the session of {which}, proposal {made.proposal},"
    by = f" by {printable(made.key)}" if made.key else ""
    at = f" at {made.time[:16].replace('T', ' ')} UTC" if made.time else ""
    print(f"{which} was {made.status}{by}{at}; that decision stands:\n{printable(made.text)}")


def _show(store: Store, item: Item, place: str) -> None:
    proposal, session, rating = item.proposal, item.session, item.session.rating
    misfit = edit.proposed(proposal.text, session).misfit
    console.facts(
        f"\nproposal {proposal.id} ({place}), session {session.id}",
        {
            "asked": printable(session.prompt_text),
            "answered": printable(readable(answer(session), session)),
            "by": session.answered or "?",
            "stars": f"{rating.stars} {printable(rating.comment)}" if rating else "-",
            "issues": ", ".join(printable(store.issues.get(each, each)) for each in rating.issues) if rating else "-",
            "judge": "-" if item.worth.score is None else f"{item.worth.score} of 5",
            f"correction ({proposal.source})": _marked(changes(proposal.text, session)),
        }
        | ({"does not fit": printable(misfit)} if misfit else {}),
    )


def _marked(pieces: Sequence[Piece]) -> str:
    return "".join(MARKS[each.kind].format(printable(each.text)) for each in pieces)


def _decide(store: Store, item: Item) -> bool:
    """Ask until a decision can be kept, or the proposal is skipped; ``False`` where the person leaves."""
    from rich.prompt import Prompt

    text = item.proposal.text
    while True:
        choice = Prompt.ask("(a)ccept, (e)dit, (r)eject, (s)kip, (q)uit", choices=list(CHOICES), default="s")
        reviewed = CHOICES[choice]
        if reviewed is None:
            return choice != "q"
        edited = _edited(text) if reviewed == "edited" else None
        if reviewed == "edited" and not edited:
            print("it is left as it was")
        elif problem := _problem(reviewed, edited or item.proposal.text, item):
            print(f"not kept: {printable(problem)}")
            text = edited or text  # the editor opens with it again
        else:
            keep(store, item.proposal, reviewed, edited)
            return True


def _problem(reviewed: Reviewed, text: str, item: Item) -> str:
    """Why a correction is not taken, as on the page; empty where it is."""
    made = edit.proposed(text, item.session)
    if reviewed == "edited":
        return made.misfit or edit.refused(made, item.session)
    return made.misfit if reviewed == "accepted" else ""


def _edited(text: str) -> str | None:
    """``text`` as the person leaves it in their editor (``$VISUAL``, ``$EDITOR``); ``None`` where nothing changes."""
    import click

    try:
        edited = click.edit(text)
    except click.ClickException as error:
        print(f"the editor ended with an error ({error.message}): leave it without one, or set EDITOR to another")
        return None
    return None if edited is None else clean(edited)
