"""Judges: models that rate answers in the place of a person, and say why."""
