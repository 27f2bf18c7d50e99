"""Answers and ratings in a real local MLflow, and what people say there."""

from __future__ import annotations

import json
import socket
from collections import Counter

import pytest

from loraloop.feedback.erasure import erase
from loraloop.records import Rating
from loraloop.source.traces import Traces
from loraloop.tracing.exporter import Exporter
from loraloop.tracing.mlflow import MlflowTraces, stars
from loraloop.tracing.settings import Tracing
from loraloop.workflows.erasure import traced
from loraloop.workflows.importing import bring
from loraloop.workflows.traces import take_ratings


@pytest.fixture
def tracing(home, request):
    """The settings that lead to the test's experiment."""
    return Tracing(mlflow=True, folder=home, experiment=request.node.name)


def traces(mlflow):
    """Every trace of the experiment, by the session that it is of."""
    found = mlflow._client.search_traces(locations=[mlflow._id])
    return {each.info.tags["loraloop.session"]: each for each in found}


def test_nobody_else_is_asked_about_an_answer(mlflow, make, monkeypatch):
    """Sending an answer opens no connection: MLflow would ask a server on the Internet what its model costs."""
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where) or [])
    mlflow.send([make("quiet", answered="ocr@7")])
    assert asked == []
    assert "quiet" in traces(mlflow)


def test_an_answer_is_a_chat_with_its_facts(mlflow, make):
    """A served answer is a trace: a chat with its calls, version, role, tokens, latency, client and conversation.

    Sent twice, as after a crash before it was marked, it is there once.
    """
    mlflow.send([make()])
    mlflow.send([make(), make("s2", prompt="once", tools=None, answer="upon", status="error", conversation=None)])
    found = traces(mlflow)
    assert set(found) == {"s1", "s2"}
    info, (span,) = found["s1"].info, found["s1"].data.spans
    assert (info.request_time, info.execution_duration, info.state.value) == (1_793_617_200_250, 1500, "OK")
    assert info.trace_metadata["mlflow.trace.session"] == "desk/talk"
    assert info.trace_metadata["mlflow.trace.user"] == "ann"
    usage = {"input_tokens": 12, "output_tokens": 16, "total_tokens": 28}
    assert json.loads(info.trace_metadata["mlflow.trace.tokenUsage"]) == usage
    assert {key: value for key, value in info.tags.items() if key.startswith("loraloop.")} == {
        "loraloop.session": "s1",
        "loraloop.version": "ocr@7",
        "loraloop.role": "validator",
        "loraloop.status": "ok",
        "loraloop.client": "ann",
        "loraloop.key": "desk",
    }
    assert (span.span_type, span.inputs["messages"], span.inputs["tools"]) == (
        "CHAT_MODEL",
        make().prompt,
        make().tools,
    )
    (choice,) = span.outputs["choices"]
    assert choice["message"]["content"] == "One moment."
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"city": "Bern"}'}
    assert (info.request_preview, info.response_preview) == ("How warm is it in Bern?", "One moment.")
    failed = found["s2"].info
    assert (failed.state.value, failed.trace_metadata["mlflow.trace.session"]) == ("ERROR", "s2")


def test_the_traces_of_sessions_are_found_by_their_ids(mlflow, tracing, store, queue, make):
    """What was sent is counted while its session is kept, and found in MLflow also afterwards; nothing is made."""
    assert MlflowTraces(None, tracing.folder / "nowhere", "x").holding(["held1"]) == []
    assert not (tracing.folder / "nowhere").exists()
    for name in ("held1", "held2", "held3"):
        store.keep(make(name))
    some = [each for each in queue.take(9) if each.id != "held3"]
    mlflow.send(some)
    queue.sent(some)
    before = traced(tracing, store, ["held1", "held3"])
    erase(store, ["held1", "held3"])
    there = {"traces in MLflow": mlflow.where("held1")[1]}
    assert (before, traced(tracing, store, ["held1", "held3"])) == ({"traces sent": "1 to mlflow"} | there, there)
    assert traced(Tracing(), store, ["held1"])["traces in MLflow"].startswith("not looked for")


def test_a_served_answer_is_not_imported_again(mlflow, home, request, store, make):
    """An import of MLflow's database takes neither an answer that is kept for a new one, nor one that was erased."""
    answers = [make("again1"), make("again2", conversation=None)]
    for each in answers:
        store.keep(each)
    mlflow.send(answers)
    erase(store, ["again2"])
    source = Traces(path=str(home / "mlflow.db"), experiment=request.node.name)
    assert bring(source, store, None).counts == {"known": 2}
    assert [each.id for each in store.all()] == ["again1"]


def test_ratings_are_assessments_and_corrections_expectations(mlflow, store, queue, make):
    """A rating given through loraloop becomes a person's feedback on the trace, its reviewed correction an expectation.

    Each is there once, also where the process ended before it was marked; a trace that was deleted holds up nothing.
    """
    for name in ("kept", "gone"):
        store.keep(make(name))
    exporter = Exporter(queue, mlflow)
    assert exporter.step() == 2
    mlflow._client.delete_traces(mlflow._id, trace_ids=[traces(mlflow)["gone"].info.trace_id])
    rating = Rating(stars=2, comment="too cold", issues=("timeout",), correction="Warm.")
    store.rate("kept", rating, key="desk")
    store.rate("gone", Rating(stars=3))
    store.decide(store.proposals()[0].id, "accepted")
    waiting = [*queue.ratings(9), *queue.corrections(9)]
    assert (exporter.step(), exporter.step()) == (3, 0)
    for each in waiting:
        mlflow.tell(each)
    feedback, expected = sorted(traces(mlflow)["kept"].info.assessments, key=lambda each: each.name, reverse=True)
    assert (feedback.name, feedback.value, feedback.rationale) == ("rating", 2, "too cold; timeout")
    assert (feedback.source.source_type, feedback.source.source_id) == ("HUMAN", "desk")
    assert (expected.name, expected.value, expected.source.source_type) == ("expected_response", "Warm.", "HUMAN")


def say(mlflow, session, name, value=None, by="HUMAN", expected=None, why=None):
    """Say something of an answer in MLflow, as its pages do."""
    from mlflow.entities import AssessmentSource, Expectation, Feedback

    source = AssessmentSource(by, "bob")
    made = Expectation(name=name, value=expected, source=source) if expected else None
    trace = traces(mlflow)[session].info.trace_id
    mlflow._client.log_assessment(trace, made or Feedback(name=name, value=value, source=source, rationale=why))


def test_what_people_rate_in_mlflow_is_feedback(mlflow, tracing, store, queue, make):
    """What a person says in MLflow is the session's rating and correction, once; what a judge or loraloop says is not.

    The first rating of a session stands, and a rating of MLflow does not go back there.
    """
    for name in ("stars", "thumb", "rated", "judged", "odd"):
        store.keep(make(name, time="2099-01-01T00:00:00+00:00"))
    store.rate("rated", Rating(stars=4))
    exporter = Exporter(queue, mlflow)
    assert exporter.step() == 6
    say(mlflow, "stars", "quality", 2, why="too\0 cold")
    say(mlflow, "stars", "expected_response", expected="Warm.")
    say(mlflow, "thumb", "helpful", value=True)
    say(mlflow, "rated", "quality", 1)
    say(mlflow, "judged", "correctness", "no", by="LLM_JUDGE")
    say(mlflow, "odd", "relevance", 0.7)
    assert take_ratings(tracing, store) == Counter(
        {
            "ratings": 2,
            "corrections, which wait for review": 1,
            "left: rated or corrected before": 1,
            "left: neither stars nor a text": 1,
        }
    )
    found = {each.id: (each.stars, each.rated_key) for each in store.all()}
    nobody = (None, None)
    assert found == {
        "stars": (2, "mlflow:bob"),
        "thumb": (5, "mlflow:bob"),
        "rated": (4, None),
        "judged": nobody,
        "odd": nobody,
    }
    assert store.session("stars").rating.comment == "too cold"
    assert [(each.session, each.text) for each in store.proposals()] == [("stars", "Warm.")]
    assert take_ratings(tracing, store) == Counter()
    store.decide(store.proposals()[0].id, "accepted")
    assert exporter.step() == 1  # the correction, which is there already
    assert exporter.step() == 0
    assert len(traces(mlflow)["stars"].info.assessments) == 2


def test_a_foreign_trace_is_left(mlflow, tracing, store, make):
    """An answer that another server sent to the same experiment is no session here: what is said of it is left."""
    mlflow.send([make("foreign", time="2099-01-01T00:00:00+00:00")])
    say(mlflow, "foreign", "quality", 2)
    assert take_ratings(tracing, store) == Counter()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), (5.0, 5), (True, 5), (False, 1), ("Yes", 5), ("fail", 1), (0, None), (4.5, None), ("3", None), ({}, None)],
)
def test_stars_of_a_value(value, expected):
    """Whole numbers of 1 to 5 are stars, yes and no are 5 and 1, and nothing else is a rating."""
    assert stars(value) == expected
