"""The page ``/review``: a person decides on proposed corrections in a browser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from loraloop.core.workers import Workers
from loraloop.errors import DataError, StoreError
from loraloop.feedback import decisions, edit, transcript
from loraloop.feedback.changes import changes, readable
from loraloop.feedback.edit import Edit
from loraloop.feedback.page import Notice, fields, message, page
from loraloop.feedback.review_access import COOKIE, Access, Keys, Visit, keep
from loraloop.feedback.review_queue import Item, gone
from loraloop.feedback.store import Store, UnknownSessionError
from loraloop.records import Session

LARGEST_FORM = 512 * 1024
MOST_FIELDS = 500
OPEN = {"security": [], "x-body-bytes": LARGEST_FORM}
"""To the server's guard the page is open: it asks for a key itself, in a form."""
THREADS = 2
LONGEST_NUMBER = 18
"""Digits of a proposal's number, as databases count."""
SHOWN = 100
"""Proposals that the list names."""
Waiting = Callable[[bool], Sequence[Item]]
"""What waits, in its order; with ``True`` new proposals are looked for first."""
SOURCES = {"user": "of the person who rated it", "sibling": "of a well-rated sibling", "rule": "made by a rule"}
AWAY = Notice(503, "Not now", "The database does not answer: try again in a moment.")
LARGE = Notice(413, "That is too long", "Go back and shorten it.")
FOREIGN = Notice(403, "Please try again", "The form did not come from its own page, or cookies are off: open /review.")
UNKNOWN = Notice(404, "There is no such proposal", "It was never made, or its session was erased: open /review.")
NO_KEY = "This key does not open the page: it needs the scope review."
CHANGED = "You changed the correction: save the edit, or undo it and accept."
logger = logging.getLogger(__name__)


def router(store: Store, waiting: Waiting, keys: Keys) -> APIRouter:
    """The routes of the page.

    Args:
        store: Where decisions go.
        waiting: The queue.
        keys: The server's; one with the scope ``review`` opens the page.
    """
    routes = APIRouter(include_in_schema=False)
    review = Review(store, waiting, Access(keys, store.links), Workers("review", THREADS))

    @routes.get("/review", openapi_extra=OPEN)
    async def review_list(request: Request) -> Response:
        """What waits, or the form that asks for a key."""
        return await review.run(request, review.queue)

    @routes.post("/review", openapi_extra=OPEN)
    async def review_enter(request: Request) -> Response:
        """Take a key, or take its cookie back."""
        return await review.run(request, review.enter)

    @routes.get("/review/{proposal}", openapi_extra=OPEN)
    async def review_item(request: Request, proposal: str) -> Response:
        """One proposal."""
        return await review.run(request, review.item, _number(proposal))

    @routes.post("/review/{proposal}", openapi_extra=OPEN)
    async def review_decide(request: Request, proposal: str) -> Response:
        """Decide on it."""
        return await review.run(request, review.decide, _number(proposal))

    return routes


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the page: who asks, and what the form says."""

    request: Request
    visit: Visit
    fields: dict[str, list[str]]

    def one(self, name: str) -> str:
        """A field's value; empty where there is none."""
        return self.fields.get(name, [""])[0]


class Review:
    """Answers the requests of the page; its methods but :meth:`run` block.

    Args:
        store: Where decisions go.
        waiting: The queue.
        access: Tells who asks.
        workers: Threads that wait for the database.
    """

    def __init__(self, store: Store, waiting: Waiting, access: Access, workers: Workers) -> None:
        self._store, self._waiting, self._access, self._workers = store, waiting, access, workers

    async def run(self, request: Request, answer: Callable[..., Response], *more: int) -> Response:
        """Let ``answer`` answer whoever may see the page; others are asked for a key."""
        sent = await fields(request, LARGEST_FORM, MOST_FIELDS, blank=True) if request.method == "POST" else {}
        if sent is None:
            return message(LARGE)
        asked = Asked(request, self._access.visit(request), sent)
        if request.method == "POST" and not self._access.agrees(request, asked.one("csrf")):
            return message(FOREIGN)
        if not asked.visit.admitted and answer != self.enter:
            return self._key_form(asked, 401)
        try:
            made = await self._workers.run(answer, asked, *more)
        except StoreError as error:
            logger.error("/review: %s", error)
            return message(AWAY)
        return made

    def enter(self, asked: Asked) -> Response:
        """The cookie for a key, and the list; ``leave`` takes the cookie back."""
        response = RedirectResponse("/review", 303)
        if asked.one("leave"):
            response.delete_cookie(COOKIE, path="/review")
            return response
        cookie = self._access.enter(asked.one("key"))
        if cookie is None:
            return self._key_form(asked, 403, NO_KEY)
        keep(response, asked.request, cookie)
        return response

    def queue(self, asked: Asked) -> Response:
        """What waits, after new proposals were looked for."""
        found = self._waiting(True)
        return self._page(asked, "review_list.html", 200, waiting=found[:SHOWN], total=len(found))

    def item(self, asked: Asked, proposal: int) -> Response:
        """One proposal with its conversation; where it is decided on, by whom and when."""
        found = self._waiting(False)
        at = _place(found, proposal)
        if at is None:
            return self._decided(asked, proposal)
        made = edit.proposed(found[at].proposal.text, found[at].session)
        return self._form(asked, found, at, made, made.misfit)

    def decide(self, asked: Asked, proposal: int) -> Response:
        """Keep what a person decided, and go on with the next; the form again where something does not fit."""
        found, choice = self._waiting(False), asked.one("decision")
        at = _place(found, proposal)
        if at is None:
            return self._decided(asked, proposal)
        item = found[at]
        made = edit.sent(asked.fields, item.session, add=choice == "add")
        if choice in ("accept", "edit"):
            if problem := _problem(choice, item, made, asked):
                return self._form(asked, found, at, made, problem, 400)
        elif choice not in ("reject", "skip"):  # show the difference, or the fields of another call
            return self._form(asked, found, at, made, made.problem)
        return self._keep(asked, found, at, choice, made)

    def _keep(self, asked: Asked, found: Sequence[Item], at: int, choice: str, made: Edit) -> Response:
        proposal, key = found[at].proposal, asked.visit.key
        try:
            if choice == "reject":
                self._store.decide(proposal.id, "rejected", key=key)
            elif choice == "edit" and _changed(made, found[at]):
                self._store.decide(proposal.id, "edited", made.whole, key=key)
            elif choice != "skip":
                self._store.decide(proposal.id, "accepted", key=key)
        except DataError:
            return self._decided(asked, proposal.id)
        done = proposal.session if choice in ("accept", "edit") else None
        following = [each.proposal.id for each in found[at + 1 :] if each.proposal.session != done]
        return RedirectResponse(f"/review/{following[0]}" if following else "/review", 303)

    def _form(
        self, asked: Asked, found: Sequence[Item], at: int, made: Edit, problem: str = "", status: int = 200
    ) -> Response:
        item = found[at]
        session, rating = item.session, item.session.rating
        return self._page(
            asked,
            "review.html",
            status,
            item=item,
            source=SOURCES.get(item.proposal.source, item.proposal.source),
            place=at + 1,
            total=len(found),
            turns=[*transcript.past(session), transcript.answer(session)],
            rating=rating,
            issues=[self._store.issues.get(each, each) for each in session.issues],
            judged=[each for each in self._store.said(session.id) if (each.source, each.kind) == ("judge", "feedback")],
            pieces=changes(item.proposal.text if made.problem else made.whole, session),
            edit=made,
            problem=problem,
            opened=asked.request.method == "POST" or bool(problem),
        )

    def _decided(self, asked: Asked, proposal: int) -> Response:
        """What was decided, or why there is nothing to decide on, with what the form held: it is not to be lost."""
        with self._store.database.read() as connection:
            made = decisions.decision(connection, proposal)
        sent = asked.request.method == "POST" and asked.one("decision") not in ("reject", "skip")
        lost = edit.as_written(asked.fields) if sent else ""
        if made is not None and (session := self._session(made.session)) is not None:
            status, text = 409 if asked.request.method == "POST" else 200, readable(made.text, session)
            return self._page(asked, "review_decided.html", status, proposal=proposal, made=made, text=text, lost=lost)
        if not lost:
            return message(UNKNOWN)
        reason, newer = gone(self._store, made.session if made else asked.one("session"))
        return self._page(
            asked, "review_decided.html", 410, proposal=proposal, made=None, lost=lost, newer=newer, reason=reason
        )

    def _session(self, name: str) -> Session | None:
        try:
            return self._store.session(name)
        except UnknownSessionError:
            return None

    def _key_form(self, asked: Asked, status: int, problem: str = "") -> HTMLResponse:
        return self._page(asked, "review_key.html", status, problem=problem)

    def _page(self, asked: Asked, name: str, status: int, **values: Any) -> HTMLResponse:
        visit = asked.visit
        response = page(name, status, script=True, csrf=self._access.token(visit), key=visit.key, **values)
        if asked.request.cookies.get(COOKIE) != visit.cookie:
            keep(response, asked.request, visit.cookie)
        return response


def _number(text: str) -> int:
    """A proposal's number in an address; 0, which none has, where a person mistyped it or no database counts so far."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else 0


def _place(found: Sequence[Item], proposal: int) -> int | None:
    return next((at for at, each in enumerate(found) if each.proposal.id == proposal), None)


def _problem(choice: str, item: Item, made: Edit, asked: Asked) -> str:
    """Why a correction is not taken; empty where it is."""
    if choice == "edit":
        return edit.refused(made, item.session)
    if "text" in asked.fields and _changed(made, item):
        return CHANGED
    return edit.proposed(item.proposal.text, item.session).misfit


def _changed(made: Edit, item: Item) -> bool:
    """Whether somebody wrote another correction than was proposed: calls may be spaced otherwise, and say the same."""
    return made.written != edit.proposed(item.proposal.text, item.session).written
