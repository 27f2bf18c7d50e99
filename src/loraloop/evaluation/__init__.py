"""Evaluation: base and adapter measured on the same held-out rows."""
