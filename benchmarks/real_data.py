"""What is recognised in files of conversations, and what becomes of their rows: one line of a table a file.

python benchmarks/real_data.py FILE...
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from loraloop.errors import DataError
from loraloop.records import Quarantined
from loraloop.source import columns
from loraloop.source.files import Files

HEAD = ("file", "form", "rows in", "conversations", "learned turns", "repaired", "quarantined")


def line(asked: str) -> tuple[str, ...]:
    """The figures of a file, whose columns may be mapped as ``source.columns`` maps them."""
    quarantined: list[Quarantined] = []
    path, *mapped = asked.split(",")
    source = Files(path=path, columns=columns.Columns(**dict(each.split("=") for each in mapped)))
    try:
        found, tally = columns.read(path, source.records(quarantined), source.columns, "", quarantined)
    except DataError as error:
        return Path(path).name, f"none: {str(error)[:120]}", *["-"] * 5
    forms = ", ".join(tally.rows) or "question and answer"
    learned = sum(message.is_target for example in found.examples for message in example.messages)
    repaired = "; ".join(f"{count} {what}" for what, count in tally.repaired.items()) or "0"
    reasons = Counter(one.reason for one in quarantined)
    aside = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common()) or "0"
    rows, kept = len(found.examples) + len(quarantined), len(found.examples)
    return Path(path).name, forms, f"{rows:,}", f"{kept:,}", f"{learned:,}", repaired, aside


def main() -> None:
    """Print the table."""
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for path in sys.argv[1:]:
        print(f"| {' | '.join(line(path))} |")


if __name__ == "__main__":
    main()
