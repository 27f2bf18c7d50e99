"""Conversations of an agent that calls tools, made up from a seed."""

from __future__ import annotations

from loraloop.source.agent_calls.source import AgentCalls as AgentCalls

__all__ = ["AgentCalls"]
