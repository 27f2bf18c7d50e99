"""Answers at a small OTLP receiver, which is made here: the OTLP of OpenTelemetry's own exporter, over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loraloop.errors import TrackingError
from loraloop.feedback.settings import Feedback
from loraloop.tracing.exporter import exporting
from loraloop.tracing.otlp import OtlpReceiver
from loraloop.tracing.queue import Queue, put
from loraloop.tracing.settings import Tracing
from waiting import until


class Receiver(BaseHTTPRequestHandler):
    """Takes spans at /v1/traces, as OpenTelemetry's specification of OTLP over HTTP says."""

    def do_POST(self):
        """Keep the spans, or refuse the request."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
            ExportTraceServiceResponse,
        )

        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        made = [span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
        refused = self.path != "/v1/traces" or any(b"poison" in span.SerializeToString() for span in made)
        self.send_response(400 if refused else 200)
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())
        if not refused:
            self.server.headers.append(dict(self.headers))
            self.server.requests.append(request)

    def log_message(self, *_):
        """Write no line a request."""


def listening(port=0):
    """A receiver that listens, and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    server.requests, server.headers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def receiver():
    """A receiver and its address."""
    server, address = listening()
    yield server, address
    server.shutdown()
    server.server_close()


def spans(server):
    """The spans that came, by session: name, attributes and the span itself."""
    found = {}
    for request in server.requests:
        for each in request.resource_spans:
            for scope in each.scope_spans:
                for span in scope.spans:
                    values = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
                    found[values["gen_ai.response.id"]] = (span.name, values, span)
    return found


def test_the_names_of_the_conventions(receiver, make, monkeypatch):
    """A chat is a span with the names of the GenAI conventions, its times, its messages in parts and its tools."""
    server, address = receiver
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    OtlpReceiver(f"{address}/").send([make(), make("s2", prompt="once", tools=None, answer="upon", status="timeout")])
    assert server.headers[0]["x-team"] == "blue"
    (resource,) = [each.resource for each in server.requests[0].resource_spans]
    assert ("service.name", "loraloop") in [(each.key, each.value.string_value) for each in resource.attributes]
    name, values, span = spans(server)["s1"]
    assert (name, span.end_time_unix_nano - span.start_time_unix_nano) == ("chat ocr@7", 1_500_000_000)
    assert span.start_time_unix_nano == 1_793_617_200_250_000_000
    messages = {key: json.loads(values.pop(f"gen_ai.{key}.messages")) for key in ("input", "output")}
    assert json.loads(values.pop("gen_ai.tool.definitions")) == make().tools
    assert messages["input"][1] == {
        "role": "user",
        "parts": [{"type": "text", "content": "How warm is it in Bern?"}],
    }
    assert [part["type"] for part in messages["output"][0]["parts"]] == ["text", "tool_call"]
    assert messages["output"][0]["finish_reason"] == "tool_calls"
    assert {key: value for key, value in values.items() if not key.startswith("loraloop.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "loraloop",
        "gen_ai.request.model": "agent:validator",
        "gen_ai.response.model": "ocr@7",
        "gen_ai.response.id": "s1",
        "gen_ai.agent.name": "validator",
        "gen_ai.conversation.id": "desk/talk",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 16,
        "session.id": "desk/talk",
        "user.id": "ann",
    }
    name, values, span = spans(server)["s2"]
    assert (name, values["error.type"], span.status.code) == ("text_completion ocr@7", "timeout", 2)


def test_an_outage_loses_nothing(make, tmp_path, monkeypatch):
    """Answers wait while nobody listens, also over a restart, and arrive once the receiver is there.

    The variable OTEL_EXPORTER_OTLP_ENDPOINT alone says where they go.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracing = Tracing(otlp=f"http://127.0.0.1:{port}", seconds=0.05)
    store = Feedback(folder=tmp_path).open(on_kept=put(tracing.names))
    queue = Queue(store.database, "otlp")
    store.keep(make("before"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    with pytest.raises(TrackingError, match="did not take them"):
        OtlpReceiver(tracing.otlp).send([make()])
    with exporting(tracing, store.database):
        store.keep(make("meanwhile"))
    assert queue.waiting() == 2
    server, _ = listening(port)
    with exporting(tracing, store.database):
        until(lambda: queue.waiting() == 0, "everything was sent")
    assert set(spans(server)) == {"before", "meanwhile"}
    server.shutdown()
    server.server_close()
    store.close()


def test_one_that_is_refused_holds_up_no_other(receiver, make, tmp_path):
    """An answer that the receiver never takes stays in the queue, and the others go."""
    server, address = receiver
    tracing = Tracing(otlp=address, seconds=0.01)
    store = Feedback(folder=tmp_path).open(on_kept=put(tracing.names))
    queue = Queue(store.database, "otlp")
    for number in range(6):
        store.keep(make(f"s{number}", answer="poison" if number == 1 else "fine"))
    with exporting(tracing, store.database):
        until(lambda: len(spans(server)) == 5, "the others were sent")
    (left,) = queue.take(9)
    assert left.id == "s1"
    store.close()
