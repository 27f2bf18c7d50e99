"""Secrets in the examples of every source."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loraloop.errors import DataError
from loraloop.records import Collection, Example, Message, Provenance, ToolCall
from loraloop.source import screening
from loraloop.source.files import Files
from loraloop.source.flips import Flips
from loraloop.source.hub import Hub
from loraloop.source.mixed import Mixed
from loraloop.source.sessions import Sessions

SECRET = "Tr0ub4dor&3x"  # noqa: S105
TEXTS = (f"log in, password: {SECRET}", "Meeting at noon", "write to ann@example.org")
SRC = Path(__file__).parents[2] / "src" / "loraloop"


@dataclass(frozen=True)
class Own:
    """A source of a user's own, without any field of these."""

    def collect(self, ocr: Any) -> Collection:
        """Three examples."""
        made = (Example.one_turn(input=text, output="ok", provenance=Provenance(source="own")) for text in TEXTS)
        return Collection(tuple(made))

    def correct(self, example: Example, answer: str) -> bool:
        """Not asked."""
        raise NotImplementedError


def file(folder: Path) -> Path:
    """The texts as a user's file."""
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps({"input": text, "output": "ok"}) + "\n" for text in TEXTS))
    return path


def sessions(folder: Path, **fields: Any) -> Sessions:
    """The texts as sessions with corrections."""
    for number, text in enumerate(TEXTS):
        place = folder / "logs" / f"s{number}" / "session.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({"task": text, "user_rating": 1, "answer": "no", "correction": "ok"}))
    return Sessions(path=folder / "logs", min_corrective=0, **fields)


def inputs(collection: Collection) -> list[str]:
    """What is asked."""
    return [example.input for example in collection.examples]


def test_what_users_typed_is_set_aside(tmp_path):
    """A session with a password teaches nothing by default; its reason names kind and field, never the value."""
    found = screening.collect(sessions(tmp_path), None)
    assert inputs(found) == list(TEXTS[1:])
    (aside,) = found.quarantined
    assert aside.item == "s0"
    assert aside.reason == "holds secrets: password on line 1 of the input (source.secrets=mask masks them)"
    assert inputs(screening.collect(Sessions(path=tmp_path / "logs", min_corrective=0, emails=True), None)) == [
        TEXTS[1]
    ]


def test_a_persons_own_file_is_kept_with_a_warning(tmp_path, caplog):
    """Rows of a file with secrets are counted by default, set aside or masked on request, and unseen by ``keep``."""
    path = str(file(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert inputs(screening.collect(Files(path=path), None)) == list(TEXTS)
    assert "examples with secrets are trained on: 1 x password" in caplog.text
    assert SECRET not in caplog.text
    assert inputs(screening.collect(Files(path=path, secrets="quarantine"), None)) == list(TEXTS[1:])
    masked = inputs(screening.collect(Files(path=path, secrets="mask", emails=True), None))
    assert masked == ["log in, password: [password]", TEXTS[1], "write to [e-mail address]"]
    caplog.clear()
    assert inputs(screening.collect(Files(path=path, secrets="keep"), None)) == list(TEXTS)
    assert not caplog.records


def test_a_hub_dataset_is_screened_as_a_file_is(tmp_path):
    """Rows of a dataset pass the same step."""
    file(tmp_path)
    found = screening.collect(Hub(name=str(tmp_path), secrets="quarantine"), None)
    assert inputs(found) == list(TEXTS[1:])
    assert [each.item for each in found.quarantined] == ["hub example 0"]


def test_each_source_of_a_mix_has_its_own_policy(tmp_path):
    """What one source of a mix sets aside, another one beside it may keep."""
    path = str(file(tmp_path))
    mix = {"strict": Files(path=path, secrets="quarantine"), "lax": Files(path=path, secrets="keep")}
    found = screening.collect(Mixed(sources=mix, weights={"strict": 1, "lax": 1}), None)
    holding = {each.provenance.source for each in found.examples if SECRET in each.input}
    assert holding <= {"lax/files"}
    assert [each.item for each in found.quarantined] == ["files example 0"]


def test_a_source_of_a_users_own_is_screened_too(caplog):
    """A source that says nothing of secrets is looked at and warned of; one that makes everything up is not."""
    with caplog.at_level(logging.WARNING):
        screening.collect(Own(), None)
    assert "1 x password" in caplog.text
    assert Flips.SCREENED


def test_no_workflow_passes_the_step_by():
    """Examples are collected through the step wherever they are trained on, exported or cached."""
    direct = re.compile(r"(source|questions|sources\[\w+\])\.collect\(")
    found = {str(path.relative_to(SRC)) for path in SRC.rglob("*.py") if direct.search(path.read_text())}
    assert found == {"source/own.py"}, "which the step itself calls"


def test_nothing_left_is_an_error_of_the_dataset(tmp_path):
    """Where every example holds a secret, the dataset says how many were set aside and why."""
    from loraloop.dataset.builder import DatasetBuilder

    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"input": f"{number} {TEXTS[0]}", "output": "x"}) + "\n" for number in range(6)))
    with pytest.raises(DataError, match="6 were set aside: 6 x holds secrets: password"):
        DatasetBuilder().build(screening.collect(Files(path=str(path), secrets="quarantine"), None))


def test_secrets_of_every_turn_are_found_and_masked():
    """A secret in an earlier turn, a call's argument or a rejected turn is found by its place, and masked there."""
    asked = Message("user", (f"log in, password: {SECRET}",))
    call = Message("assistant", (), (ToolCall("type", {"text": [f"password: {SECRET}"], "at": 3}),))
    made = Example(
        messages=(asked, call, Message("tool", ("ok",)), Message("assistant", ("done",))),
        rejected=Message("assistant", (f"password: {SECRET}",)),
        provenance=Provenance(source="own"),
    )
    (aside,) = screening.screen(Collection((made,)), "quarantine").quarantined
    assert all(f"of the {place}" in aside.reason for place in ("message 1", "message 2", "rejected"))
    assert SECRET not in aside.reason
    (masked,) = screening.screen(Collection((made,)), "mask").examples
    assert SECRET not in repr(masked)
    assert masked.messages[1].tool_calls[0].arguments["at"] == 3
    assert masked.messages[2:] == made.messages[2:]


@pytest.mark.parametrize(
    ("arguments", "masked"),
    [
        ({"password": SECRET}, {"password": "[password]"}),
        ({"user": "bob", "api_key": "abc123def456", "tries": 3}, {"user": "bob", "api_key": "[password]", "tries": 3}),
        ({"login": {"password": ["hunter", "Tr0ub4 dor&3"]}}, {"login": {"password": ["[password]"] * 2}}),
        ({"pin": 4711, "card": 4111111111111111}, {"pin": "[password]", "card": "[card number]"}),
        ({"sk_live_4eC39HqLyjWDarjtT1zdp7dc": None}, {"[API key]": None}),
        ({"password": "", "text": "password", "key": "ArrowDown", "shown": True}, None),
    ],
)
def test_a_secret_that_the_name_of_an_argument_betrays_is_masked(arguments, masked):
    """What is set aside for an argument's name is what masking replaces, whole; nothing of it is found again."""
    call = Message("assistant", (), (ToolCall("log_in", arguments),))
    made = Collection((Example(messages=(Message("user", ("q",)), call), provenance=Provenance(source="own")),))
    (kept,) = screening.screen(made, "mask").examples
    assert kept.messages[1].tool_calls[0].arguments == (masked or arguments)
    assert len(screening.screen(made, "quarantine").quarantined) == bool(masked)
    assert screening.screen(Collection((kept,)), "quarantine").quarantined == ()
