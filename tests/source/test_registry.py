"""Datasets of a ``dataset_info.json``."""

import json
import logging

import pytest

from loraloop.errors import ConfigError, DataError
from loraloop.source.registry import Registry

ROLES = {"role_tag": "who", "content_tag": "said", "user_tag": "U", "assistant_tag": "A", "function_tag": "F"}
PAIR = {"q": "q", "good": "a", "bad": "w"}
TALK = [{"who": "U", "said": "q"}, {"who": "F", "said": '{"name": "look", "arguments": {}}'}]
ANSWER = [{"who": "observation", "said": "lit"}, {"who": "A", "said": "a"}]
DATASETS = {
    "alpaca": ({}, {"instruction": "q", "input": "i", "output": "a"}),
    "named": ({"columns": {"prompt": "q", "response": "r", "system": "s"}}, {"q": "q", "r": "a", "s": "S"}),
    "pretrain": ({"columns": {"prompt": "text"}}, {"text": "a"}),
    "pairs": ({"ranking": True, "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}}, PAIR),
    "kto": ({"columns": {"prompt": "q", "response": "r", "kto_tag": "ok"}}, {"q": "q", "r": "a", "ok": False}),
    "talk": (
        {"formatting": "sharegpt", "columns": {"messages": "talk", "tools": "t"}, "tags": ROLES},
        {"talk": TALK + ANSWER, "t": '[{"name": "look"}]'},
    ),
    "usual": (
        {"formatting": "sharegpt"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ),
}


@pytest.fixture
def info(tmp_path):
    """A registry with its files beside it."""
    for name, (_, row) in DATASETS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([row, row]))
    entries = {name: {"file_name": f"{name}.json", **keys} for name, (keys, _) in DATASETS.items()}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    return tmp_path / "dataset_info.json"


def example(info, name):
    return Registry(path=str(info), name=name).collect(None).examples[0]


def test_an_entry_is_read_as_it_stands(info):
    """Columns, tags, rankings, ratings and plain texts of entries give the conversations that they mean."""
    said = {name: [(m.role, m.text or m.tool_calls[0].name) for m in example(info, name).messages] for name in DATASETS}
    talk = [("user", "q"), ("assistant", "a")]
    assert said == {
        "alpaca": [("user", "q\ni"), ("assistant", "a")],
        "named": [("system", "S"), *talk],
        "pretrain": [("assistant", "a")],
        "pairs": talk,
        "kto": talk,
        "talk": [("user", "q"), ("assistant", "look"), ("tool", "lit"), ("assistant", "a")],
        "usual": talk,
    }
    assert example(info, "pairs").rejected.text == "w"
    assert example(info, "kto").label is False
    assert example(info, "pretrain").raw
    assert example(info, "talk").tools[0]["function"]["name"] == "look"


def test_keys_that_are_not_read_are_named(info, caplog):
    """Keys of an entry, its columns and its tags that nothing reads are named in one warning."""
    entry = {
        "file_name": "alpaca.json",
        "folder": "x",
        "columns": {"prompt": "instruction", "response": "output", "p": "q"},
    }
    info.write_text(json.dumps({"odd": entry | {"tags": {"t": "u"}}}))
    with caplog.at_level(logging.WARNING):
        example(info, "odd")
    assert "of odd are not read: folder, columns.p, tags.t" in caplog.text


def test_the_number_of_samples_and_the_limit_are_kept(info):
    """``num_samples`` of the entry limits the rows, and ``source.limit`` wins over it."""
    info.write_text(json.dumps({"few": {"file_name": "alpaca.json", "num_samples": 1}}))
    assert len(Registry(path=str(info), name="few").collect(None).examples) == 1
    assert len(Registry(path=str(info.parent), name="few", limit=2).collect(None).examples) == 2


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"script_url": "x"}, "names neither file_name nor hf_hub_url"),
        ({"file_name": "none.json"}, "finds no file"),
        ({"file_name": "a", "formatting": "odd"}, "neither alpaca nor sharegpt"),
        ({"file_name": "a", "columns": {"prompt": 1}}, "columns of it is no object of names"),
        ([], "not an object"),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(info, entry, reason):
    """An entry without data, of another formatting or of other types is refused before any work, with the reason."""
    info.write_text(json.dumps({"it": entry}))
    with pytest.raises(ConfigError, match=reason):
        Registry(path=str(info), name="it").check()


def test_a_name_that_is_not_there_is_answered_with_those_that_are(info):
    """A mistyped name lists the datasets; a missing setting, a missing file and a broken one say what to do."""
    with pytest.raises(ConfigError, match=r"source\.name=alpac is not in .*did you mean alpaca\?\); it has alpaca"):
        Registry(path=str(info), name="alpac").check()
    with pytest.raises(ConfigError, match="not both set"):
        Registry(path=str(info)).check()
    info.write_text("[")
    with pytest.raises(ConfigError, match=r"no dataset_info\.json that can be read"):
        Registry(path=str(info), name="alpaca").check()


def test_a_ranking_without_pairs_is_an_error(info):
    """An entry that says ``ranking`` and whose rows have no pairs is refused: it would be trained on as answers."""
    info.write_text(json.dumps({"it": {"file_name": "alpaca.json", "ranking": True}}))
    with pytest.raises(DataError, match="says ranking, and no row has chosen and rejected"):
        example(info, "it")
