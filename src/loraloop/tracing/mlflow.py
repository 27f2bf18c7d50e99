"""MLflow as a place for traces: answers and ratings go there, and what people rate there is found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loraloop.core import mlflow_database
from loraloop.core.durations import moment
from loraloop.errors import TrackingError
from loraloop.records import Session
from loraloop.tracing import chat, spans
from loraloop.tracing.queue import Corrected, Given

if TYPE_CHECKING:
    from mlflow.entities import Assessment
    from mlflow.tracing.client import TracingClient

RATING, EXPECTED = "rating", "expected_response"
"""Names of the assessments that ratings and corrections become."""
MARK = "loraloop"
"""Key in the metadata of every assessment that loraloop wrote."""
PAGE = 200
GONE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
"""How MLflow says that a trace was deleted."""
WORDS = dict.fromkeys(("yes", "true", "pass", "good", "up"), 5) | dict.fromkeys(
    ("no", "false", "fail", "bad", "down"), 1
)
"""Stars of the words that stand for yes and no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """What a person said in MLflow about a served answer.

    Attributes:
        id: MLflow's.
        who: As MLflow knows the person.
        stars: 1 to 5; ``None`` where the value is none that stars can be made of.
        comment: Why.
        correction: The answer as it should have been.
    """

    id: str
    session: str
    name: str
    who: str
    stars: int | None = None
    comment: str = ""
    correction: str | None = None


class MlflowTraces:
    """An experiment of MLflow.

    The id of a trace follows from the session's, so an answer that is sent twice is there once.

    Args:
        uri: MLflow's server; ``None`` is ``mlflow.db`` in ``folder``, which is made where it is missing.
        folder: Home of that database and of its artifacts.
        experiment: Made where it is missing.
    """

    name = "mlflow"
    takes_ratings: Literal[True] = True

    def __init__(self, uri: str | None, folder: Path, experiment: str) -> None:
        self._uri, self._folder, self._experiment = uri, folder.absolute(), experiment

    def send(self, sessions: Sequence[Session]) -> None:
        """Send answers in one call.

        Raises:
            Exception: MLflow's, SQLAlchemy's or the network's; the same answers can be sent again.
        """
        from mlflow.entities import Span
        from opentelemetry.sdk.resources import Resource

        nothing = Resource.get_empty()
        made = [Span(spans.span(each, _attributes(each), nothing)) for each in sessions]
        try:
            self._client.log_spans(self._id, made)
        except NotImplementedError:  # MLflow remembers for the whole process that a server did not tell its version
            from mlflow.store.tracking.rest_store import RestStore

            RestStore._get_server_version.cache_clear()
            raise

    def tell(self, judged: Given | Corrected) -> None:
        """Write a rating as feedback, or a correction as an expectation, unless it is there or the trace is gone.

        Raises:
            Exception: As :meth:`send`.
        """
        from mlflow.exceptions import MlflowException

        trace, made = _name(judged.session), _assessment(judged)
        try:
            there = self._client.get_trace_info(trace).assessments
            if not any(_same(each, made) for each in there):
                self._client.log_assessment(trace, made)
        except MlflowException as error:
            if error.error_code not in GONE:
                raise

    def where(self, session: str) -> tuple[str, str]:
        """The ids of the experiment and of a session's trace, which MLflow's pages are found by."""
        return self._id, _name(session)

    def holding(self, sessions: Sequence[str]) -> list[str]:
        """The ids of the traces of these sessions that are there; nothing is made for it.

        Raises:
            Exception: As :meth:`send`.
        """
        from mlflow import MlflowClient

        if self._uri is None and not mlflow_database.is_made(self._folder / "mlflow.db"):
            return []
        client, found = self._client, list[str]()  # it also sets how long an absent server is waited for
        experiment = MlflowClient(self._reached).get_experiment_by_name(self._experiment)
        if experiment is None:
            return []
        for start in range(0, len(sessions), PAGE):
            names = ", ".join(f"'{_name(each)}'" for each in sessions[start : start + PAGE])
            page = client.search_traces(
                filter_string=f"request_id IN ({names})",
                max_results=PAGE,
                include_spans=False,
                locations=[experiment.experiment_id],
            )
            found += (trace.info.trace_id for trace in page)
        return sorted(found)

    def assessed(self, days: float) -> Iterator[list[Assessed]]:
        """What people said of answers of the last ``days``, a page of traces at a time, but for what loraloop wrote.

        Raises:
            Exception: As :meth:`send`.
        """
        since = round((datetime.now(UTC) - timedelta(days=days)).timestamp() * 1000)
        where, token = f"timestamp_ms > {since} AND tag.`loraloop.session` IS NOT NULL", None
        while True:
            page = self._client.search_traces(
                filter_string=where, max_results=PAGE, page_token=token, include_spans=False, locations=[self._id]
            )
            infos = [trace.info for trace in page]
            yield [_read(each, info.tags["loraloop.session"]) for info in infos for each in _by_people(info)]
            if not (token := page.token):
                return

    @cached_property
    def _client(self) -> TracingClient:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # MLflow asks its maker's server for prices of the models that answered, by name.
        os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")
        from mlflow.tracing.client import TracingClient

        return TracingClient(self._reached)

    @cached_property
    def _reached(self) -> str:
        """The address, whose database is made where it is missing."""
        mlflow_database.silence()
        if self._uri is not None:
            return self._uri
        mlflow_database.make(self._folder, self._experiment, TrackingError)
        return f"sqlite:///{self._folder / 'mlflow.db'}"

    @cached_property
    def _id(self) -> str:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self._reached)
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            place = (self._folder / "artifacts").as_uri() if self._uri is None else None
            try:
                return str(
                    client.create_experiment(self._experiment, place, {"mlflow.experimentKind": "genai_development"})
                )
            except MlflowException:  # another process was first
                found = client.get_experiment_by_name(self._experiment)
        if found is None or found.lifecycle_stage != "active":
            raise TrackingError(
                f"MLflow's experiment {self._experiment} was deleted: restore it with `mlflow experiments restore`, or "
                "choose another with tracing.experiment=NAME"
            )
        return str(found.experiment_id)


def _name(session: str) -> str:
    return f"tr-{spans.trace_id(session):032x}"


def _attributes(session: Session) -> dict[str, str]:
    """The span's attributes as MLflow keeps them: each is JSON."""
    usage = {"input_tokens": session.prompt_tokens or 0, "output_tokens": session.completion_tokens or 0}
    given = {"model": session.asked, "messages": chat.asked(session)} | (
        {"tools": session.tools} if session.tools else {}
    )
    choice = {"index": 0, "message": chat.answered(session), "finish_reason": chat.finish(session)}
    named = {f"mlflow.traceTag.loraloop.{name}": value for name, value in spans.tags(session).items()}
    values = spans.common(session) | {
        "mlflow.traceRequestId": _name(session.id),
        "mlflow.spanType": "LLM" if isinstance(session.prompt, str) else "CHAT_MODEL",
        "mlflow.message.format": "openai",
        "mlflow.spanInputs": given,
        "mlflow.spanOutputs": {"id": session.id, "model": session.answered, "choices": [choice]},
        "mlflow.chat.tokenUsage": usage | {"total_tokens": sum(usage.values())},
        "mlflow.traceTag.mlflow.traceName": session.role or session.answered or "answer",
        **({"mlflow.chat.tools": session.tools} if session.tools else {}),
        **named,
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


def _assessment(judged: Given | Corrected) -> Assessment:
    from mlflow.entities import AssessmentSource, Expectation, Feedback

    at = round(moment(judged.time).timestamp() * 1000) if judged.time else None
    times: dict[str, Any] = {"create_time_ms": at, "last_update_time_ms": at}
    if isinstance(judged, Corrected):
        reviewed = AssessmentSource("HUMAN", "review")
        metadata = {MARK: f"correction {judged.id}"}
        return Expectation(name=EXPECTED, value=judged.text, source=reviewed, metadata=metadata, **times)
    why = "; ".join(filter(None, (judged.comment, ", ".join(judged.issues))))
    return Feedback(
        name=RATING,
        value=judged.stars,
        rationale=why or None,
        source=AssessmentSource("HUMAN", judged.key or "rating link"),
        metadata={MARK: "rating", **({"issues": ", ".join(judged.issues)} if judged.issues else {})},
        **times,
    )


def _same(there: Assessment, made: Assessment) -> bool:
    """Whether an assessment was written before, or a person wrote the same expectation."""
    mark = (there.metadata or {}).get(MARK)
    equal = there.expectation is not None and there.expectation == made.expectation
    return equal or (mark is not None and mark == (made.metadata or {}).get(MARK))


def _by_people(info: Any) -> list[Assessment]:
    return [
        each
        for each in info.assessments
        if each.source.source_type == "HUMAN" and each.valid is not False and MARK not in (each.metadata or {})
    ]


def _read(said: Assessment, session: str) -> Assessed:
    found: dict[str, Any] = {"id": said.assessment_id, "session": session, "name": said.name}
    found["who"] = said.source.source_id or "default"
    if said.expectation is not None:
        text = said.expectation.value
        return Assessed(**found, correction=text if isinstance(text, str) else None)
    value = said.feedback.value if said.feedback is not None else None
    return Assessed(**found, stars=stars(value), comment=said.rationale or "")


def stars(value: Any) -> int | None:
    """The stars that a feedback's value says: a whole number of 1 to 5, or yes and no as 5 and 1."""
    if isinstance(value, bool):
        return 5 if value else 1
    if isinstance(value, str):
        return WORDS.get(value.strip().lower())
    return int(value) if isinstance(value, int | float) and value in (1, 2, 3, 4, 5) else None
