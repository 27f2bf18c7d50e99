"""Serving: one base, many adapters, over an OpenAI-compatible HTTP API."""
