"""Served answers as traces: in MLflow, where people rate them, and at an OTLP receiver."""
