"""What was recognised in a file or dataset, in figures and in one line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from loraloop.records import Example
from loraloop.source.forms.draft import Row, label_column
from loraloop.source.forms.recognise import Made


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over the rows that were read.

    Attributes:
        rows: By the name of the form, usable or not.
        repaired: By what was put right.
        counts: ``conversations``, ``learned`` turns, and conversations that were ``mended``.
        labels: By the column that judges answers: how many of them are good, and how many bad.
    """

    rows: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    labels: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def add(self, made: Made, row: Row) -> None:
        """Count a conversation, read from ``row``."""
        self.judged(made.example, row)
        self.repaired.update(made.repaired)
        self.counts.update(_counts(made))

    def judged(self, example: Example, row: Row) -> None:
        """Count the label of an example, read from ``row``, if it has one."""
        if example.label is not None and (column := label_column(row)) is not None:
            self.labels[column, example.label] += 1

    def remove(self, made: Made) -> None:
        """Count a conversation no more."""
        self.repaired.subtract(made.repaired)
        self.counts.subtract(_counts(made))

    def line(self) -> str:
        """The forms with their rows, the conversations, the learned turns, the labels, and what was put right."""
        forms = ", ".join(f"{form} in {rows:,} rows" for form, rows in self.rows.most_common())
        repaired = ", ".join(f"{count:,} {what}" for what, count in self.repaired.most_common() if count)
        labels = ", ".join(
            f"{self.labels[column, True]:,} good and {self.labels[column, False]:,} bad answers by {column}"
            for column in dict.fromkeys(column for column, _ in self.labels)
        )
        counted = f"{self.counts['conversations']:,} conversations, {self.counts['learned']:,} learned turns"
        return "; ".join(filter(None, [f"{forms}: {counted}" * bool(forms), labels, repaired]))


def _counts(made: Made) -> dict[str, int]:
    learned = sum(message.is_target for message in made.example.messages)
    return {"conversations": 1, "learned": learned, "mended": int(bool(made.repaired))}
