"""Rated agent sessions as corrective examples, positive examples and preference pairs."""

from __future__ import annotations

from loraloop.source.sessions.source import Sessions

__all__ = ["Sessions"]
