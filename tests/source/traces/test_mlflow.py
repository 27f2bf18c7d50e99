"""MLflow's traces out of a real database, and what their assessments become."""

import contextlib
import json
import sqlite3

import pytest

from loraloop.core import mlflow_database
from loraloop.errors import DataError, TrackingError
from loraloop.records import Assessment, Message, Trace
from loraloop.source.traces import Traces, reading
from loraloop.source.traces.judged import judged


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database of MLflow with three traces in two experiments, assessed by a person, a judge and a program."""
    from mlflow.tracking import fluent

    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_database.make(folder, "loraloop", TrackingError)
    with pytest.MonkeyPatch.context() as patch:  # MLflow keeps both for the whole process
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MLFLOW_EXPERIMENT_ID", "0")
        patch.setattr(fluent, "_active_experiment_id", None)
        _write()
    return folder / "mlflow.db"


def _write():
    import mlflow
    from mlflow.entities import AssessmentSource, SpanType

    mlflow.set_experiment("loraloop")
    who = [AssessmentSource(source_type=kind, source_id=name) for kind, name in
           (("HUMAN", "ann"), ("LLM_JUDGE", "gpt"), ("CODE", "check"))]  # fmt: skip
    with mlflow.start_span("agent", span_type=SpanType.AGENT) as agent:
        mlflow.update_current_trace(metadata={"mlflow.trace.session": "s", "mlflow.trace.user": "u"})
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        calling = {"role": "assistant", "content": None, "tool_calls": [call]}
        ask = {"role": "user", "content": "q"}
        with mlflow.start_span("chat", span_type=SpanType.CHAT_MODEL) as span:
            span.set_inputs({"messages": [ask], "model": "m"})
            span.set_outputs({"choices": [{"message": calling}]})
        with mlflow.start_span("look", span_type=SpanType.TOOL) as span:
            span.set_outputs("lit")
        with mlflow.start_span("chat", span_type=SpanType.CHAT_MODEL) as span:
            span.set_inputs({"messages": [ask, calling, {"role": "tool", "tool_call_id": "c1", "content": "lit"}]})
            span.set_outputs({"choices": [{"message": {"role": "assistant", "content": "a"}}]})
    with mlflow.start_span("plain") as plain:
        plain.set_inputs({"question": "r"})
        plain.set_outputs("b")
    with mlflow.start_span("broken") as broken:
        broken.set_inputs({"x": 1})
    mlflow.set_experiment("other")
    with mlflow.start_span("elsewhere") as span:
        span.set_inputs("t")
        span.set_outputs("c")
    mlflow.flush_trace_async_logging()
    for source, value in zip(who, (False, True, 0.9), strict=True):
        mlflow.log_feedback(trace_id=agent.trace_id, name="good", value=value, source=source, rationale="why")
    mlflow.log_expectation(trace_id=agent.trace_id, name="expected_response", value="A!", source=who[0])
    mlflow.log_feedback(trace_id=plain.trace_id, name="good", value=True, source=who[1])


def said(trace):
    return [(m.role, m.text or [(c.name, dict(c.arguments)) for c in m.tool_calls]) for m in trace.messages]


def test_traces_of_a_database_are_conversations_with_what_was_said_of_them(database):
    """Chat and tool spans make a conversation; a person's word becomes stars and a correction, a judge's neither."""
    found = Traces(path=str(database), experiment="loraloop").read()
    agent, plain = found.traces
    looked = ("assistant", [("look", {})])
    assert said(agent) == [("user", "q"), looked, ("tool", "lit"), ("assistant", "a")]
    assert (agent.conversation, agent.client, agent.model) == ("s", "u", None)
    assert (agent.stars, agent.rated_by, agent.comment, agent.correction) == (1, "ann", "why", "A!")
    assert [(each.source, each.value) for each in agent.assessments] == [
        ("human", False), ("judge", True), ("code", 0.9), ("human", "A!"),
    ]  # fmt: skip
    assert (said(plain), plain.stars, len(plain.assessments)) == ([("user", "r"), ("assistant", "b")], None, 1)
    assert [one.reason for one in found.aside] == ["the trace tells no question and answer"]
    assert len(Traces(path=str(database)).read().traces) == 3


def test_an_example_learns_the_correction_and_rejects_the_answer(database):
    """A corrected trace teaches what was expected, beside the answer that was given."""
    example = Traces(path=str(database), experiment="loraloop").collect().examples[0]
    assert (example.output, example.rejected.text, example.label) == ("A!", "a", None)


def test_a_database_or_experiment_that_is_not_there_is_named(database, tmp_path):
    """A missing file or experiment, a database of another MLflow and one of something else are errors that say so."""
    with pytest.raises(DataError, match="does not exist or is empty"):
        Traces(path=str(tmp_path / "no.db")).read()
    with pytest.raises(DataError, match="no experiment 'nope'"):
        Traces(path=str(database), experiment="nope").read()
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript("CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('0')")
    with pytest.raises(DataError, match="has schema 0, but the installed MLflow"):
        Traces(path=str(tmp_path / "old.db")).read()
    with contextlib.closing(sqlite3.connect(tmp_path / "else.db")) as connection:
        connection.execute("CREATE TABLE x (y)")
    with pytest.raises(DataError, match="is no database of MLflow"):
        Traces(path=str(tmp_path / "else.db")).read()
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize(
    ("values", "stars"),
    [
        ([True, False], [5, 1]),
        ([1.0, 4.0, 5, 6], [None] * 4),
        ([1.0, 4.0, 5], [1, 4, 5]),
        ([1.0, 0.5, 0], [5, 3, 1]),
        ([1.0, 1.0], [None, None]),
        (["yes", None, float("nan")], [None] * 3),
    ],
)
def test_the_scale_of_a_number_is_what_its_name_is_used_for(values, stars):
    """Booleans are 5 and 1 stars; numbers are stars where one is above 1, shares where one is below, else no rating."""
    assert [trace.stars for trace in judged([rated(each) for each in values])] == stars


def rated(value, **more):
    each = Assessment(id="a", source="human", by="ann", kind="feedback", name="n", value=value)
    said = (Message("user", ("q",)), Message("assistant", ("a",)))
    return Trace(id="t", place="log:1", messages=said, assessments=(each,), **more)


def test_a_trace_that_is_half_or_there_twice_is_set_aside():
    """A trace without its first span and one that came before are set aside with the reason."""
    inner = {"parent_span_id": "x", "attributes": {"mlflow.spanInputs": '"q"', "mlflow.spanOutputs": '"a"'}}
    root = inner | {"parent_span_id": None}
    traces = (("t", inner), ("u", root), ("u", root))
    rows = [{"info": {"trace_id": trace}, "data": {"spans": [span]}} for trace, span in traces]
    aside = []
    found = reading.conversations([(f"log:{nth}", json.loads(json.dumps(row))) for nth, row in enumerate(rows)], aside)
    assert [trace.id for trace in found.traces] == ["u"]
    assert [(one.item, one.reason) for one in aside] == [
        ("log:0", "the trace has no span without a parent: half of it is missing"),
        ("log:2", "the trace u is there twice"),
    ]
