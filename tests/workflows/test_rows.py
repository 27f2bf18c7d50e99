"""What the stages that train or measure share."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from loraloop.dataset.builder import DatasetBuilder
from loraloop.lora import Lora
from loraloop.records import Collection, Example, Job, Provenance
from loraloop.workflows import description, report, rows


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


def labelled(good, bad):
    """So many answers that are labelled good, and bad."""
    examples = Numbers(good + bad).collect(None).examples
    return Collection(tuple(replace(each, label=place < good) for place, each in enumerate(examples)))


def test_held_out_rows_that_are_labelled_bad_are_counted(capsys, tmp_path):
    """What is printed and what a run says of its data tell how many held-out rows nothing is measured on."""
    built = DatasetBuilder(validation_share=0.5).build(labelled(20, 20), None)
    bad = sum(not row.example.label for row in built.validation)
    assert 0 < bad < 20
    said = f"20 held out ({bad} labelled bad: not measured on)"
    job = Job(stage="experiment", seed=0, config={}, output=tmp_path, choices={})
    report.data(built)
    assert f"20 to train on, {said}" in capsys.readouterr().out
    assert f"20 rows to train on, {said}, " in description.begun(job, built, Lora())
    assert rows.unmeasured(rows.prepare(Numbers(40), None, DatasetBuilder(), None)) == ""


def test_bad_rows_are_no_rows_for_a_verdict(caplog):
    """The line on the share for a verdict counts the rows that can be measured on, and names the others."""
    caplog.set_level(logging.INFO)
    DatasetBuilder().build(labelled(80, 40), None)
    said = "80 rows and 40 labelled bad, which nothing is measured on: of the others about 20 held out instead of 16"
    assert said in caplog.text


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
