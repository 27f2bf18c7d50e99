"""The routes that rate sessions: a web page behind a signed link, and ``/v1/feedback`` for programs with a key."""

from __future__ import annotations

import logging
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from loraloop.core.workers import Workers
from loraloop.errors import StoreError
from loraloop.feedback import transcript
from loraloop.feedback.issues import MOST, unknown
from loraloop.feedback.links import ExpiredLinkError, ForgedLinkError
from loraloop.feedback.page import Notice, fields, message, page
from loraloop.feedback.ratings import LONGEST_COMMENT, LONGEST_CORRECTION, clean
from loraloop.feedback.store import Level, RatedError, Store, UnknownSessionError
from loraloop.records import Rating, Session

LARGEST_FORM = 256 * 1024
"""Bytes: an emoji of a text takes twelve, percent-encoded; this holds both texts at their longest, and some more."""
FORM = {"security": [], "x-body-bytes": LARGEST_FORM}
"""What the form's route says of itself: it is open, and takes no larger body."""
MOST_FIELDS = MOST + 8
THREADS = 4
"""Ratings that wait for the database at the same time; others wait for one of them."""
COOKIE = "loraloop_rate"
logger = logging.getLogger(__name__)


class RatingFields(BaseModel):
    """The fields of a rating, as the form and ``/v1/feedback`` take them."""

    model_config = ConfigDict(extra="forbid")

    level: Annotated[Level, Field(description="what is rated: the answer, or the conversation that it is part of")] = (
        "answer"
    )
    rating: Annotated[int, Field(ge=1, le=5)]
    comment: Annotated[str, Field(max_length=LONGEST_COMMENT)] = ""
    issues: Annotated[list[str], Field(max_length=MOST, description="words of feedback.issues")] = []
    correction: Annotated[str, Field(max_length=LONGEST_CORRECTION)] = ""

    @field_validator("correction")
    @classmethod
    def _of_an_answer(cls, value: str, info: ValidationInfo) -> str:
        if value.strip() and info.data.get("level") == "conversation":
            raise ValueError(OF_AN_ANSWER)
        return value

    def as_rating(self) -> Rating:
        """The rating with texts that every database takes, and each issue once."""
        return Rating(
            stars=self.rating,
            comment=clean(self.comment),
            issues=tuple(dict.fromkeys(self.issues)),
            correction=clean(self.correction),
        )


class FeedbackRequest(RatingFields):
    """The body of ``/v1/feedback``."""

    session: Annotated[str, Field(min_length=1, max_length=200)]
    rating: Annotated[int, Field(ge=1, le=5, strict=True)]
    user: Annotated[str, Field(max_length=256, description="who rates; kept as what the request claims")] | None = None


class NoFormError(Exception):
    """The form is not shown or not taken; ``notice`` is shown instead."""

    def __init__(self, notice: Notice) -> None:
        super().__init__(notice.title)
        self.notice = notice


THANKS = Notice(200, "Thank you", "The rating is kept. You can close this page.")
USED = Notice(409, "Rated already", "This answer has its rating; the first one stands.")
EXPIRED = Notice(410, "This link has expired", "Ask whoever sent it for a newer answer to rate.")
FORGED = Notice(403, "This link does not work", "It is incomplete or was changed: open it exactly as you got it.")
UNKNOWN = Notice(404, "There is no such answer", "It was not kept, or it is still being given: try again in a moment.")
LARGE = Notice(413, "That is too long", f"Comments have up to {LONGEST_COMMENT} characters: go back and shorten it.")
FOREIGN = Notice(403, "Please try again", "The form did not come from its own page, or cookies are off: open the link.")
OF_AN_ANSWER = "The right answer belongs to one answer: rate that, or leave it out."
OTHER_FIELDS = "The form was sent with something that it does not ask for."
AWAY = Notice(503, "Not now", "The rating could not be kept: send it again in a moment.")


def router(store: Store) -> APIRouter:
    """Routes that rate sessions of ``store``.

    ``/rate/{session}`` is open to whoever has the signed link; ``/v1/feedback`` asks for the scope ``feedback``.
    """
    routes = APIRouter(tags=["feedback"])
    workers = Workers("ratings", THREADS)
    form = Form(store, workers)

    @routes.get("/rate/{session}", openapi_extra={"security": []}, response_class=HTMLResponse)
    async def rate_page(request: Request, session: str, token: str = "") -> HTMLResponse:
        """The page on which a person rates an answer."""
        return await form.show(request, session, token)

    @routes.post("/rate/{session}", openapi_extra=FORM, response_class=HTMLResponse)
    async def rate_form(request: Request, session: str, token: str = "") -> HTMLResponse:
        """Keep the rating that the page's form sends."""
        return await form.take(request, session, token)

    @routes.post("/v1/feedback", openapi_extra={"security": [{"key": ["feedback"]}]})
    async def feedback(request: Request, body: FeedbackRequest) -> dict[str, Any]:
        """Rate an answer, or the conversation that it is part of; each has one rating, the first.

        A key that may ask rates what it asked itself; one with the scope ``feedback`` alone is a reviewer's.
        """
        if problems := _other_issues(store, body):
            raise RequestValidationError(problems, body=body)
        try:
            await workers.run(_rate, store, body, request.state)
        except UnknownSessionError:
            raise HTTPException(404, f"there is no session {body.session[:80]!r}") from None
        except RatedError as error:
            raise HTTPException(409, str(error)) from None
        except StoreError as error:
            logger.error("the rating of %s was not kept: %s", body.session, error)
            raise HTTPException(503, AWAY.text, {"retry-after": "1"}) from error
        level = {"level": body.level} if body.level != "answer" else {}
        return {"session": body.session, "rating": body.rating} | level

    return routes


def _rate(store: Store, body: FeedbackRequest, state: Any) -> None:
    """Keep what a program rates.

    Raises:
        UnknownSessionError: There is no such session, or it is one of another client, which is not told apart.
        RatedError: It is rated.
    """
    key, scopes = getattr(state, "key", None), getattr(state, "scopes", ())
    found = store.session(body.session)
    if "infer" in scopes and "admin" not in scopes and found.asked_key != key:
        raise UnknownSessionError(body.session)
    claimed = None if body.user is None else clean(body.user)
    store.rate(found.id, body.as_rating(), key, level=body.level, claimed=claimed)


class Form:
    """Shows the form on which a person rates an answer, and keeps what it sends.

    The form carries a token that must match the cookie of its page, so that no other site can send it in a visitor's
    name.

    Args:
        store: Where ratings go.
        workers: Threads that wait for the database.
    """

    def __init__(self, store: Store, workers: Workers) -> None:
        self._store, self._workers = store, workers

    async def show(self, request: Request, session: str, proof: str) -> HTMLResponse:
        """The empty form, or a notice that says why the session cannot be rated."""
        try:
            found, levels = await self._workers.run(self._rateable, session, proof)
        except NoFormError as error:
            return message(error.notice)
        return self._form(request, found, levels, {}, None)

    async def take(self, request: Request, session: str, proof: str) -> HTMLResponse:
        """Keep the rating that the form sends; the form again, with the problem, if it is none."""
        try:
            found, levels = await self._workers.run(self._rateable, session, proof)
            sent = await self._fields(request)
            nonce = request.cookies.get(COOKIE, "")
            if not self._store.links.agrees(session, nonce, sent.pop("csrf", [""])[0]):
                raise NoFormError(FOREIGN)
            given = {name: values if name == "issues" else values[0] for name, values in sent.items()}
            try:
                said = RatingFields.model_validate(given)
            except ValidationError as error:
                return self._form(request, found, levels, given, _problem(error))
            if _other_issues(self._store, said):
                return self._form(request, found, levels, given, OTHER_FIELDS)
            await self._workers.run(self._keep, session, said)
        except NoFormError as error:
            return message(error.notice)
        return message(THANKS)

    async def _fields(self, request: Request) -> dict[str, list[str]]:
        found = await fields(request, LARGEST_FORM, MOST_FIELDS)
        if found is None:
            raise NoFormError(LARGE)
        return found

    def _rateable(self, session: str, proof: str) -> tuple[Session, list[Level]]:
        """The session, and what of it can be rated still."""
        try:
            self._store.links.verify(session, proof)
            found = self._store.session(session)
            offered: tuple[Level, ...] = ("answer", "conversation") if transcript.goes_on(found) else ("answer",)
            levels = [level for level in offered if self._store.rated(found, level) is None]
        except ExpiredLinkError:
            raise NoFormError(EXPIRED) from None
        except ForgedLinkError:
            raise NoFormError(FORGED) from None
        except UnknownSessionError:
            raise NoFormError(UNKNOWN) from None
        except StoreError:
            raise NoFormError(AWAY) from None
        if not levels:
            raise NoFormError(USED)
        return found, levels

    def _keep(self, session: str, said: RatingFields) -> None:
        try:
            self._store.rate(session, said.as_rating(), level=said.level)
        except RatedError:
            raise NoFormError(USED) from None
        except StoreError as error:
            logger.error("the rating of %s was not kept: %s", session, error)
            raise NoFormError(AWAY) from None

    def _form(
        self, request: Request, found: Session, levels: list[Level], given: dict[str, Any], problem: str | None
    ) -> HTMLResponse:
        nonce = request.cookies.get(COOKIE) or secrets.token_urlsafe(16)
        response = page(
            "rate.html",
            400 if problem else 200,
            turns=[*transcript.past(found), transcript.answer(found)],
            answered=found.answered,
            levels=levels,
            given={"level": "answer", "rating": "", "comment": "", "issues": [], "correction": ""} | given,
            problem=problem,
            issues=self._store.issues,
            reviewed=self._store.reviewed,
            longest_comment=LONGEST_COMMENT,
            longest_correction=LONGEST_CORRECTION,
            csrf=self._store.links.token(found.id, nonce),
        )
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, nonce, path="/rate", httponly=True, samesite="lax", secure=secure)
        return response


def _problem(error: ValidationError) -> str:
    """One sentence for the person who filled in the form."""
    first = error.errors()[0]
    field = str(first["loc"][0])
    if (field, first["type"]) == ("correction", "value_error"):
        return OF_AN_ANSWER
    return {
        "rating": "Choose one to five stars.",
        "comment": f"The comment is longer than {LONGEST_COMMENT} characters.",
        "correction": f"The right answer is longer than {LONGEST_CORRECTION} characters.",
    }.get(field, OTHER_FIELDS)


def _other_issues(store: Store, said: RatingFields) -> list[dict[str, Any]]:
    """What is wrong with issues that the form does not have, as pydantic lists problems."""
    return [
        {"type": "issue", "loc": ("body", "issues", at), "msg": unknown(word, store.issues), "input": word}
        for at, word in enumerate(said.issues)
        if word not in store.issues
    ]
