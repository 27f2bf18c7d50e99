"""A row's learned turns as rows of their own, each asked with its true past."""

from __future__ import annotations

from dataclasses import replace

from loraloop.records import Row


def turns(row: Row, end: str) -> list[Row]:
    """A row for each learned turn, whose example ends there; they share an origin.

    Args:
        row: Of one learned turn or more.
        end: The text of the tokenizer's end token, which the earlier turns carry.
    """
    if not row.earlier:
        return [row]
    example = row.example.kept_together()
    learned = [place for place, message in enumerate(example.messages) if message.is_target]
    earlier = [
        Row(
            row.prompt[:start],
            row.prompt[start:stop].removesuffix(end),
            example.until(place),
            template=row.template,
        )
        for place, (start, stop) in zip(learned, row.earlier, strict=False)
    ]
    return [*earlier, replace(row, example=example, earlier=())]
