"""Deciding on proposed corrections on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loraloop.core import console
from loraloop.errors import ConfigError
from loraloop.feedback.review_queue import Item
from loraloop.feedback.store import Proposal, Store
from loraloop.feedback.terminal import printable
from loraloop.records import Session

CHOICES = {"a": "accept", "e": "edit", "r": "reject", "s": "skip", "q": "quit"}


def print_waiting(store: Store, waiting: Sequence[Item]) -> None:
    """Print every proposal that waits, and how to decide on it."""
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
    done: set[str] = set()
    for number, item in enumerate(waiting, 1):
        proposal = item.proposal
        if proposal.session in done:  # it has a correction by now
            continue
        _show(store, item, f"{number} of {len(waiting)}")
        choice = _decide(store, proposal)
        if choice == "quit":
            break
        if choice in ("accept", "edit"):
            done.add(proposal.session)
    print(f"{len(store.proposals())} wait for review")


def _show(store: Store, item: Item, place: str) -> None:
    proposal, session, rating = item.proposal, item.session, item.session.rating
    console.facts(
        f"\nproposal {proposal.id} ({place}), session {session.id}",
        {
            "asked": printable(session.prompt_text),
            "answered": printable(session.answer or ""),
            "by": session.answered or "?",
            "stars": f"{rating.stars} {printable(rating.comment)}" if rating else "-",
            "issues": ", ".join(printable(store.issues.get(each, each)) for each in rating.issues) if rating else "-",
            "judge": "-" if item.worth.score is None else f"{item.worth.score} of 5",
            f"correction ({proposal.source})": printable(proposal.text),
        },
    )


def _decide(store: Store, proposal: Proposal) -> str:
    from rich.prompt import Prompt

    choice = CHOICES[Prompt.ask("(a)ccept, (e)dit, (r)eject, (s)kip, (q)uit", choices=list(CHOICES), default="s")]
    if choice == "accept":
        store.decide(proposal.id, "accepted")
    elif choice == "reject":
        store.decide(proposal.id, "rejected")
    elif choice == "edit":
        text = _edited(proposal.text)
        if not text:
            print("it is left as it was")
            return "skip"
        store.decide(proposal.id, "edited", text)
    return choice


def _edited(text: str) -> str | None:
    """``text`` as the person leaves it in their editor (``$VISUAL``, ``$EDITOR``)."""
    import click

    try:
        edited = click.edit(text)
    except click.ClickException as error:
        raise ConfigError(f"the editor failed ({error.message}): set EDITOR to one that works") from error
    return None if edited is None else edited.strip()
