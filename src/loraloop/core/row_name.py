"""What a person finds a row by."""

from __future__ import annotations

from loraloop.records import Row

WORDS = 40


def row_name(row: Row) -> str:
    """A row's image, its session, or its number in the source and its first words."""
    made = row.example.provenance
    begins = " ".join(row.example.input.split())
    words = begins if len(begins) <= WORDS else f"{begins[:WORDS]}..."
    return made.image_path or made.session_id or f"row {made.index} ({words!r})"
