"""What the stages that train or measure share."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from loraloop.dataset.builder import DatasetBuilder
from loraloop.records import Collection, Example, Provenance
from loraloop.workflows import rows


class Numbers:
    """A source of so many rows."""

    SCREENED = True

    def __init__(self, count):
        self.count = count

    def collect(self, ocr):
        """Every row asks for another word."""
        provenance = Provenance(source="test")
        examples = [Example.one_turn(input=f"word{n}", output=str(n), provenance=provenance) for n in range(self.count)]
        return Collection(examples=tuple(examples))


@pytest.mark.parametrize(
    ("count", "share", "held_out"),
    [(59, "auto", 12), (60, "auto", 20), (99, "auto", 20), (100, "auto", 20), (60, 0.2, 12), (60, 0.1, 6)],
)
def test_enough_rows_are_held_out_for_a_verdict(count, share, held_out):
    """Of 60 to 99 rows 20 are held out, of fewer and of more the usual fifth, and another share is kept."""
    built = rows.prepare(Numbers(count), None, DatasetBuilder(validation_share=share), None)
    assert (len(built.train), len(built.validation)) == (count - held_out, held_out)


@pytest.mark.parametrize(
    ("name", "form", "template", "said"),
    [
        ("org/chat", "{{ messages }}", "{input}\n> ", 1),
        ("org/chat", "{{ messages }}", "chat", 0),
        ("org/base", None, "{input}\n> ", 0),
        ("bundled:tiny", "{{ messages }}", "{input}\n> ", 0),
    ],
)
def test_a_chat_model_with_a_plain_template_is_told_of_its_own(caplog, name, form, template, said):
    """One line names dataset=chat where a base that does not ship has a chat template and the data's is another."""
    caplog.set_level(logging.INFO)
    base, tokenizer = SimpleNamespace(name=name), SimpleNamespace(chat_template=form)
    rows.hint_chat(SimpleNamespace(base=base, tokenizer=tokenizer), DatasetBuilder(template=template))
    assert sum("dataset=chat" in line for line in caplog.messages) == said
