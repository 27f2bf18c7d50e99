"""Trackers: where runs are logged."""
