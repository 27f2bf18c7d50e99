"""Errors as OpenAI's API shapes them: ``{"error": {"message", "type", "param", "code"}}`` with a status."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from loraloop.core.suggest import nearest
from loraloop.errors import BusyError, ConfigError, GrammarError, LoraloopError, ModelError, RegistryError, StoreError

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
UNION_STEPS = frozenset({"str", "int", "float", "bool", "none"})
"""Names of a union's members in pydantic's locations: no part of what the client wrote."""
TAGGED = frozenset({"messages", "content", "input", "output"})
"""Lists of members that a word tells apart, which pydantic's locations name after the place."""
ELSEWHERE = frozenset(
    {"repetition_penalty", "length_penalty", "min_p", "min_tokens", "ignore_eos", "stop_token_ids", "prompt_logprobs"}
)
"""Parameters of other servers that mean themselves, however they are spelt."""
RETRY_SECONDS = 1
LISTED = 8
"""Problems of one body that are listed."""
logger = logging.getLogger(__name__)


class ApiError(LoraloopError):
    """An error that is the answer to a request.

    Args:
        status: HTTP's.
        message: The rule, the value and the way out.
        param: The parameter at fault, such as ``messages[0].content``.
        code: A word for programs, such as ``model_not_found``.
        retry_after: Seconds after which to ask again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status, self.param, self.code = status, param, code
        self.headers = {"retry-after": str(max(1, round(retry_after)))} if retry_after is not None else {}
        if status == 401:
            self.headers["www-authenticate"] = "Bearer"
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def of(error: Exception) -> ApiError:
    """The answer to what went wrong while a request was worked on."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        return ApiError(429, str(error), code="overloaded", retry_after=RETRY_SECONDS)
    if isinstance(error, StoreError):
        message = "the answer could not be kept as a session, so it is not given; ask again later"
        logger.error("a session was not kept: %s", error)
        return ApiError(503, message, code="session_not_kept", retry_after=RETRY_SECONDS)
    if isinstance(error, GrammarError):
        return ApiError(400, str(error), param=error.param, code="invalid_value")
    if isinstance(error, (ModelError, RegistryError)):
        logger.error("%s", error)
        message = "this model cannot answer now; the server's log says why"
        return ApiError(503, message, param="model", code="model_unavailable", retry_after=RETRY_SECONDS)
    if isinstance(error, ConfigError):
        logger.error("%s", error)
        return ApiError(503, "the server is not set up for this; its log says why", code="not_configured")
    logger.error("unexpected", exc_info=error)
    return ApiError(500, "an unexpected error; the server's log holds it", code="internal_error")


def invalid(problems: Sequence[Mapping[str, Any]], neutral: Mapping[str, Any], names: Collection[str] = ()) -> ApiError:
    """What pydantic or the JSON parser found wrong in a body.

    Args:
        problems: Pydantic's list.
        neutral: Names of parameters that are accepted with a neutral value only.
        names: Of every parameter, of which one was probably meant.
    """
    problems_by_param = dict(reversed([_problem(problem, neutral, names) for problem in _narrowest(problems)]))
    (param, (first, code)), *others = reversed(problems_by_param.items())
    message = "; ".join([first, *(text for _, (text, _) in others[: LISTED - 1])])
    return ApiError(400, message, param=param or None, code=code)


def install(app: FastAPI, neutral: Mapping[str, Mapping[str, Any]], names: Mapping[str, Collection[str]]) -> None:
    """Make every error of ``app`` an answer in OpenAI's shape.

    Args:
        app: Gets the handlers.
        neutral: By path, the parameters that :func:`invalid` takes.
        names: By path, the names that it takes.
    """

    def respond(error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    async def known(request: Request, error: Exception) -> JSONResponse:
        return respond(of(error))

    async def malformed(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            return respond(of(error))
        path = request.url.path
        return respond(invalid(error.errors(), neutral.get(path, {}), names.get(path, ())))

    async def plain(request: Request, error: Exception) -> JSONResponse:
        status = getattr(error, "status_code", 500)
        code = "invalid_json" if status == 400 else None  # a body that is no UTF-8, or is nested too deeply
        answer = ApiError(status, f"{request.method} {request.url.path}: {getattr(error, 'detail', error)}", code=code)
        answer.headers |= dict(getattr(error, "headers", None) or {})
        return respond(answer)

    app.add_exception_handler(LoraloopError, known)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, known)


def _narrowest(problems: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the members of a union that all refuse a value, the one that agreed with most of it."""
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for problem in problems:
        steps = problem["loc"]
        union = next((index for index, step in enumerate(steps) if _is_union_step(step)), len(steps))
        key = tuple(steps[:union])
        if key not in found or _agreed(problem) > _agreed(found[key]):
            found[key] = problem
    return list(found.values())


def _agreed(problem: Mapping[str, Any]) -> tuple[int, bool]:
    """How far a value agreed with a member of a union: by its depth, then by being of the right type."""
    return len(problem["loc"]), not str(problem["type"]).endswith("_type")


def _problem(
    problem: Mapping[str, Any], neutral: Mapping[str, Any], names: Collection[str]
) -> tuple[str, tuple[str, str]]:
    """The parameter at fault, what is wrong with it and a code."""
    kind, said = str(problem["type"]), str(problem["msg"]).removeprefix("Value error, ")
    if isinstance(problem.get("input"), str):  # pydantic counts items where a text was looked at before
        said = re.sub(r"\b(item|items) after validation", "characters", said)
    if kind == "json_invalid":
        return "", (
            f"the body is not JSON: {problem['ctx']['error']} at character {problem['loc'][-1]}",
            "invalid_json",
        )
    param = _param(problem["loc"])
    if not param:
        if kind == "value_error":
            return "", (said, "invalid_value")
        return "", (f"the body must be a JSON object with content-type: application/json ({said})", "invalid_json")
    if kind == "extra_forbidden":
        meant = "" if param in ELSEWHERE else nearest(param, names)
        return param, (f"{param} is not a parameter here{meant}: leave it out", "unknown_parameter")
    if param.partition(".")[0].partition("[")[0] in neutral:
        return param, (f"{param} is not supported with that value: leave it out ({said})", "unsupported_parameter")
    code = "missing_required_parameter" if kind == "missing" else "invalid_value"
    return param, (f"{param}: {said[0].lower()}{said[1:]}", code)


def _param(steps: Sequence[Any]) -> str:
    text, name = "", ""
    for before, step in zip(["", *steps[1:]], steps[1:], strict=False):
        if isinstance(step, int):
            text += f"[{step}]"
        elif not _is_union_step(step) and not (isinstance(before, int) and name in TAGGED):
            text, name = f"{text}.{step}" if text else str(step), str(step)
    return text[:200]


def _is_union_step(step: Any) -> bool:
    return isinstance(step, str) and (step in UNION_STEPS or "[" in step or step.startswith("constrained-"))
