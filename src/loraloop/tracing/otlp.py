"""An OTLP receiver, such as OpenTelemetry's collector, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from loraloop import __version__
from loraloop.core.extras import require
from loraloop.core.passwords import mask
from loraloop.errors import TrackingError
from loraloop.records import Session
from loraloop.tracing import spans

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter


class OtlpReceiver:
    """Sends answers to ``endpoint``/v1/traces.

    The exporter reads headers, compression, certificates and time-out from the environment itself
    (``OTEL_EXPORTER_OTLP_HEADERS`` and so on).

    Args:
        endpoint: The base address.
    """

    name = "otlp"
    takes_ratings: Literal[False] = False

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint.rstrip("/")

    def send(self, sessions: Sequence[Session]) -> None:
        """Send answers, all of them or none.

        Raises:
            TrackingError: The receiver does not take them; the exporter's log says why.
        """
        from opentelemetry.sdk.trace.export import SpanExportResult

        made = [spans.span(each, spans.common(each) | spans.texts(each), self._resource) for each in sessions]
        if self._exporter.export(made) is not SpanExportResult.SUCCESS:
            raise TrackingError(f"the OTLP receiver at {mask(self._endpoint)} did not take them")

    @cached_property
    def _exporter(self) -> SpanExporter:
        module = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otlp")
        exporter: SpanExporter = module.OTLPSpanExporter(endpoint=f"{self._endpoint}/v1/traces")
        return exporter

    @cached_property
    def _resource(self) -> Resource:
        from opentelemetry.sdk.resources import Resource

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "loraloop"}
        return Resource.create(named | {"service.version": __version__})
