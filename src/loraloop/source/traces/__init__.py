"""Conversations that other programs logged: OpenAI's requests and responses, OpenTelemetry's spans, MLflow's traces."""

from __future__ import annotations

from loraloop.source.traces.source import Traces

__all__ = ["Traces"]
