"""Launchers: how the jobs of a multirun are carried out."""
