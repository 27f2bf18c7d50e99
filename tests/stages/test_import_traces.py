"""Stage ``import``: logs into the store of sessions, and what training then sees of them."""

import json

import pytest

from loraloop.errors import ConfigError
from loraloop.feedback.settings import Feedback
from loraloop.records import Assessment, Job, Message, ToolCall, Trace
from loraloop.source.flips import Flips
from loraloop.source.sessions import Sessions
from loraloop.source.traces import Traces
from loraloop.stages.import_traces import import_traces
from loraloop.workflows import importing

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}


def call(number, text, answer, **more):
    """A row of a log."""
    request = {"model": "gpt", "messages": [{"role": "user", "content": text}]}
    return {"request": request, "response": {"id": f"chatcmpl-{number}", "choices": [{"message": answer}]}, **more}


def say(text):
    return {"role": "assistant", "content": text}


def assessed(trace, question, answer, *assessments):
    """A trace of MLflow in an export."""
    span = {"attributes": {"mlflow.spanInputs": json.dumps(question), "mlflow.spanOutputs": json.dumps(answer)}}
    said = [
        {
            "assessment_id": f"{trace}{nth}",
            "assessment_name": kind,
            "source": {"source_type": source, "source_id": "ann"},
            kind: {"value": value},
            "rationale": "since",
        }
        for nth, (source, kind, value) in enumerate(assessments)
    ]
    return {"info": {"trace_id": trace, "assessments": said}, "data": {"spans": [span]}}


ROWS = [
    call(1, "look at x", {"role": "assistant", "content": None, "tool_calls": [CALL]}, workload_id="actor"),
    call(2, "my key is AKIAIOSFODNN7EXAMPLE", say("ok")),
    assessed(
        "t3", "2+2?", "5", ("HUMAN", "feedback", False), ("LLM_JUDGE", "feedback", True), ("HUMAN", "expectation", "4")
    ),
    assessed("t4", "2+3?", "5", ("HUMAN", "feedback", True), ("CODE", "feedback", 0.5)),
    assessed("t5", "2+4?", "7", ("LLM_JUDGE", "feedback", False)),
]


def test_a_log_is_imported_once(desk):
    """stage=import keeps each conversation as a session, says what it set aside, and the second time keeps none."""
    (desk.folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"request": {"mess')
    first = desk("stage=import", "source.path=log.jsonl")
    assert first.line("kept").startswith("4 new, 0 were there")
    assert first.line("rated") == "2 by people, 1 with a correction"
    assert first.line("assessments") == "3 of people, 2 of judges, 1 of code"
    assert "quarantined: 2" in first.out
    assert "log.jsonl:6" in first.out
    assert "AKIA" not in first.out
    again = desk("stage=import", "source.path=log.jsonl", "source.secrets=mask")
    assert again.line("kept").startswith("1 new, 4 were there")
    store = Feedback(folder=desk.folder / "mlruns").open()
    sessions = {session.id: session for session in store.all()}
    assert sorted(sessions) == ["1", "2", "t3", "t4", "t5"]
    assert "AKIA" not in json.dumps(sessions["2"].prompt)
    assert sessions["1"].answer == '<tool_call>\n{"name": "look", "arguments": {"at": "x"}}\n</tool_call>'
    assert (sessions["1"].role, sessions["1"].asked, sessions["1"].answered) == ("actor", "gpt", None)
    assert [sessions[name].stars for name in ("t3", "t4", "t5")] == [1, 5, None]
    assert (sessions["t3"].rated_key, sessions["t3"].rating.comment) == ("import:ann", "since")
    assert [(each.source, each.value) for each in store.said("t5")] == [("judge", False)]
    assert [(one.session, one.text) for one in store.proposals()] == [("t3", "4")]
    assert store.outcomes() == []
    store.close()


def test_training_sees_imported_sessions_like_served_ones(tmp_path):
    """source=sessions learns from a correction that was imported, and from an answer that a person found good."""
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[2:]))
    store = Feedback(folder=tmp_path, review="none").open()
    importing.bring(Traces(path=str(tmp_path / "log.jsonl")), store, "validator")
    store.close()
    found = Sessions(path=tmp_path / "sessions.db", min_corrective=1, review="none").collect()
    assert [(each.input, each.output, each.task) for each in found.examples] == [
        ("2+2?", "4", "validator"), ("2+3?", "5", "validator"),
    ]  # fmt: skip


def test_another_source_is_refused(tmp_path):
    """stage=import with a source that reads no logs says what to write."""
    job = Job(stage="import", seed=0, config={}, output=tmp_path, choices={})
    with pytest.raises(ConfigError, match="leave source=traces"):
        import_traces(job, None, Flips(), Feedback(folder=tmp_path))


def test_what_was_said_of_a_trace_is_masked_too(tmp_path):
    """A secret in a comment or an assessment is masked even where the conversation holds none."""
    key = "AKIAIOSFODNN7EXAMPLE"
    said = Assessment(id="a", source="human", by="ann", kind="feedback", name="n", value=key, rationale=key)
    messages = (Message("user", ("q",)), Message("assistant", ("a",), (ToolCall("look"),)))
    trace = Trace(id="t", place="p", messages=messages, comment=key, assessments=(said,))
    assert "AKIA" not in repr(importing._clean(trace, Traces()))
