"""Any JSON at the reader of logs."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.tables_json import loads
from loraloop.source.traces import reading

NAMES = [
    "request", "response", "messages", "choices", "message", "role", "content", "tool_calls", "function", "name",
    "arguments", "id", "prompt", "input", "output", "custom_id", "body", "delta", "error", "type", "parts",
    "resourceSpans", "scopeSpans", "spans", "traceId", "spanId", "parentSpanId", "attributes", "key", "value",
    "stringValue", "arrayValue", "values", "events", "startTimeUnixNano", "info", "data", "trace_id", "assessments",
    "source", "feedback", "expectation", "mlflow.spanInputs", "mlflow.spanOutputs", "gen_ai.input.messages",
    "gen_ai.output.messages", "gen_ai.prompt.0.role", "gen_ai.prompt.0.content", "gen_ai.prompt.0", "text", "tools",
]  # fmt: skip
WORDS = ["user", "assistant", "tool", "", "a", "{}", "[{", "1", "data: {}", "\ud800", "\0", "HUMAN", "text"]
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=5))
JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
TURN = st.fixed_dictionaries({"role": st.sampled_from(WORDS[:4]), "content": st.sampled_from(WORDS) | JSON})
ASKED = st.fixed_dictionaries({"messages": st.lists(TURN, max_size=3) | JSON}, optional={"tools": JSON})
ANSWERED = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"message": TURN | JSON}), max_size=2) | JSON},
    optional={"id": st.sampled_from(["x", "y"]) | JSON, "usage": JSON, "created": JSON},
)
CALL = st.fixed_dictionaries(
    {"request": ASKED | JSON, "response": ANSWERED | JSON}, optional={"timestamp": JSON, "client_id": JSON}
)
ATTRIBUTES = st.dictionaries(st.sampled_from(NAMES), st.lists(TURN, max_size=2) | JSON, max_size=4)
SPAN = st.fixed_dictionaries(
    {"traceId": st.sampled_from(["t", "u"]), "spanId": st.sampled_from("abc"), "attributes": ATTRIBUTES | JSON},
    optional={"parentSpanId": st.sampled_from("abz"), "events": JSON, "startTimeUnixNano": JSON, "status": JSON},
)
EXPORT = st.fixed_dictionaries({"resourceSpans": st.just([])}).flatmap(
    lambda _: st.lists(SPAN | JSON, max_size=3).map(
        lambda spans: {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    )
)
MLFLOW = st.fixed_dictionaries(
    {
        "info": st.fixed_dictionaries({"trace_id": st.sampled_from(["t", "u"])}, optional={"assessments": JSON}) | JSON,
        "data": st.fixed_dictionaries(
            {"spans": st.lists(st.fixed_dictionaries({"attributes": ATTRIBUTES}), max_size=2)}
        )
        | JSON,
    }
)
ROWS = st.lists(CALL | EXPORT | MLFLOW | st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4), max_size=4)
GOOD = {
    "request": {"messages": [{"role": "user", "content": "q"}]},
    "response": {"choices": [{"message": {"content": "a"}}]},
}


def read(rows):
    aside = []
    return reading.conversations([(str(number), row) for number, row in enumerate(rows)], aside), aside


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_every_row_is_used_or_set_aside(rows):
    """Whatever JSON rows hold, nothing is raised, and each row and call is a conversation, a part, or set aside."""
    found, aside = read([GOOD, *rows])
    told = found.counts
    assert found.traces
    assert sum(found.rows.values()) + len(aside) >= len(rows) + 1
    assert told["calls"] - told["twice"] - told["joined"] >= len(found.traces)
    assert told["calls"] <= len(found.traces) + told["twice"] + told["joined"] + len(aside)
    json.dumps([each.id for each in found.traces]).encode()


@settings(max_examples=100, deadline=None)
@given(st.lists(CALL, max_size=4))
def test_the_counts_of_calls_add_up(rows):
    """Each row of a request and its response is one conversation, came twice, is a part of one, or is set aside."""
    found, aside = read([GOOD, *rows])
    assert len(found.traces) + found.counts["twice"] + found.counts["joined"] + len(aside) == len(rows) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(JSON.map(json.dumps) | st.text(max_size=20), max_size=4))
def test_every_line_of_a_file_is_read_or_set_aside(tmp_path_factory, lines):
    """Whatever a line of a .jsonl holds, JSON or not, the file is read to its end and the line is not lost."""
    path = tmp_path_factory.mktemp("log") / "calls.jsonl"
    kept = [line for line in (" ".join(each.split()) for each in lines) if line]
    path.write_text("\n".join([json.dumps(GOOD), *kept]), "utf8", "surrogatepass")
    aside = []
    rows = list(reading.files([path], aside))
    assert len(rows) + len(aside) == len(kept) + 1
    assert rows[0][1] == loads(json.dumps(GOOD).encode())
