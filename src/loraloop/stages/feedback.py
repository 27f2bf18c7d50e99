"""Stage ``feedback``: rate a served answer, and sessions in and out as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.workflows.retraining.deployment import sessions_of

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Level, Store
    from loraloop.records import Job, Session


def feedback(
    job: Job,
    session: str | None,
    rating: int | None,
    comment: str | None,
    issues: Sequence[str] | None,
    correction: str | None,
    level: str,
    export: str | None,
    load: str | None,
    role: str | None,
    roles: dict[str, str],
    names: dict[str, str],
    feedback: Feedback,
) -> None:
    """Rate a session or its conversation, asking for what is not given; without a session, list the latest.

    Raises:
        ConfigError: A rating outside 1 to 5, an unknown issue, level or role, or no rating and no terminal to ask on.
        UnknownSessionError: The session does not exist.
        RatedError: The session has been rated.
    """
    from loraloop.feedback import terminal

    if load is not None:
        _load(feedback.open(), Path(load).expanduser())
    if export is not None:
        _export(feedback.existing(), Path(export).expanduser())
    if load is None and export is None and session is None:
        own = sessions_of(role, roles, names)
        terminal.print_latest(feedback.existing(), own, role)
    if session is not None:
        given = None if rating is None else terminal.checked(rating, comment, issues, correction, feedback.issues)
        store = feedback.existing()
        logged = store.session(str(session))
        rated = terminal.level(level)
        _kept(store, logged, rated, terminal.rate(store, logged, given, correction, feedback.issues, rated))


def _kept(store: Store, logged: Session, level: Level, written: str) -> None:
    waits = "waits for review (loraloop stage=review)" if store.reviewed else "kept, and learned from without a review"
    new = level == "conversation" or logged.rating is None
    rating = "kept" if new else f"{logged.stars} stars, as before"
    rating += f", of the conversation {logged.conversation_id or logged.id}" * (level == "conversation")
    facts = {"answered by": logged.answered or "?", "rating": rating}
    console.facts(f"session {logged.id}", facts | ({"correction": waits} if written else {}))


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
