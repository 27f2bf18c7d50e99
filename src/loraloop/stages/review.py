"""Stage ``review``: a person accepts, edits or rejects corrections before anyone learns from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loraloop.core import console
from loraloop.errors import ConfigError
from loraloop.stages.feedback import printable

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Proposal, Store
    from loraloop.records import Job

ALL = "all"
CHOICES = {"a": "accept", "e": "edit", "r": "reject", "s": "skip", "q": "quit"}


def review(
    job: Job, accept: Sequence[int] | str | None, reject: Sequence[int] | str | None, feedback: Feedback
) -> None:
    """Decide on proposed corrections: those that are named, all that wait, or one by one on the terminal.

    Raises:
        ConfigError: A proposal that does not wait for review is named.
    """
    from loraloop.feedback.review import propose

    store = feedback.existing()
    propose(store)
    waiting = store.proposals()
    if accept or reject:
        _named(store, _chosen(accept, waiting), _chosen(reject, waiting))
        return
    if not waiting:
        print("no correction waits for review")
    elif sys.stdin.isatty() and sys.stdout.isatty():
        _one_by_one(store, waiting)
    else:
        _list(store, waiting)


def _chosen(asked: Sequence[int] | str | None, waiting: Sequence[Proposal]) -> list[Any]:
    """Numbers as they were given; whether they wait is looked at later."""
    if asked == ALL:
        return [proposal.id for proposal in waiting]
    return list(asked) if isinstance(asked, list) else [asked] if asked else []


def _named(store: Store, accept: Sequence[int], reject: Sequence[int]) -> None:
    waiting = {proposal.id for proposal in store.proposals()}
    unknown = [each for each in (*accept, *reject) if each not in waiting]
    if unknown or set(accept) & set(reject):
        raise ConfigError(
            f"accept={list(accept)} reject={list(reject)}: each proposal that waits is named once, "
            f"and {', '.join(map(str, unknown)) or 'one'} is not; stage=review lists them"
        )
    for proposal in accept:
        store.decide(proposal, "accepted")
    for proposal in reject:
        store.decide(proposal, "rejected")
    print(f"{len(accept)} accepted, {len(reject)} rejected, {len(store.proposals())} wait")


def _list(store: Store, waiting: Sequence[Proposal]) -> None:
    for number, proposal in enumerate(waiting, 1):
        _show(store, proposal, f"{number} of {len(waiting)}")
    print("To decide: loraloop stage=review in a terminal, or accept=[1,2] reject=[3], or accept=all.")


def _one_by_one(store: Store, waiting: Sequence[Proposal]) -> None:
    done: set[str] = set()
    for number, proposal in enumerate(waiting, 1):
        if proposal.session in done:  # it has a correction by now
            continue
        _show(store, proposal, f"{number} of {len(waiting)}")
        choice = _decide(store, proposal)
        if choice == "quit":
            break
        if choice in ("accept", "edit"):
            done.add(proposal.session)
    print(f"{len(store.proposals())} wait for review")


def _show(store: Store, proposal: Proposal, place: str) -> None:
    session = store.session(proposal.session)
    rating = session.rating
    console.facts(
        f"\nproposal {proposal.id} ({place}), session {session.id}",
        {
            "asked": printable(session.prompt_text),
            "answered": printable(session.answer or ""),
            "by": session.answered or "?",
            "stars": f"{rating.stars} {printable(rating.comment)}" if rating else "-",
            "issues": ", ".join(map(printable, rating.issues)) if rating else "-",
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
