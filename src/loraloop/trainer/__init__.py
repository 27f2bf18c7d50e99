"""Trainers: rows and a base model in, an adapter out."""
