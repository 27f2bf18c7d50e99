"""Rows of a person's own files as examples."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core import tables
from loraloop.errors import ConfigError, DataError
from loraloop.source.columns import Columns
from loraloop.source.files import Files

ROWS = [{"question": f"How much is {i} + {i}?", "answer": str(2 * i)} for i in range(5)]


def rows_of(source: Files) -> list[tuple[str, str, str]]:
    return [(e.instruction, e.input, e.output) for e in source.collect(None).examples]


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".toon"])
def test_every_format_gives_the_same_examples(tmp_path, suffix):
    """The five formats, told by their suffix, give equal examples for equal rows and one mapping."""
    path = tmp_path / f"my{suffix}"
    tables.write(path, ROWS)
    source = Files(path=str(path), columns=Columns(input="question", output="answer"), instruction="Add.")
    assert rows_of(source) == [("Add.", row["question"], row["answer"]) for row in ROWS]
    assert [e.provenance.index for e in source.collect(None).examples] == [0, 1, 2, 3, 4]


def test_columns_of_the_fields_own_names_need_no_mapping(tmp_path):
    """Alpaca's columns, a task and a rejected answer are taken by their names."""
    row = {"instruction": "Say it.", "input": "a", "output": "b", "task": "echo", "rejected": "c", "other": 1}
    example = Files(path=str(jsonl(tmp_path / "a.jsonl", row))).collect(None).examples[0]
    assert (example.instruction, example.input, example.output) == ("Say it.", "a", "b")
    assert (example.task, example.rejected.text, example.provenance.source) == ("echo", "c", "files")


def test_a_literal_instruction_stands_in_for_a_missing_one(tmp_path):
    """Rows with an instruction keep it; rows without one, or with an empty one, get the configured text."""
    path = jsonl(
        tmp_path / "a.jsonl",
        {"instruction": "Mine.", "input": "a", "output": "b"},
        {"instruction": None, "input": "a", "output": "b"},
        {"input": "a", "output": "b"},
    )
    assert [row[0] for row in rows_of(Files(path=str(path), instruction="Ours."))] == ["Mine.", "Ours.", "Ours."]


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    """A mistyped column stops the run and the message lists the columns and the nearest one."""
    tables.write(tmp_path / "my.csv", ROWS)
    source = Files(path=str(tmp_path / "my.csv"), columns=Columns(input="questoin", output="answer"))
    with pytest.raises(DataError, match=r"'questoin' for source\.columns\.input \(did you mean question\?\)") as error:
        source.collect(None)
    assert "it has question, answer" in str(error.value)
    with pytest.raises(DataError, match=r"no column 'output' for source\.columns\.output"):
        Files(path=str(tmp_path / "my.csv")).collect(None)
    with pytest.raises(DataError, match=r"no column 'input' for source\.columns\.input"):
        Files(path=str(tmp_path / "my.csv"), columns=Columns(output="answer")).collect(None)


def test_corrupt_lines_are_set_aside_by_number_and_the_rest_is_kept(tmp_path):
    """A corrupt JSONL line is quarantined as file:line with a reason; no other row is lost."""
    path = jsonl(
        tmp_path / "a.jsonl", {"input": "a", "output": "b"}, '{"input": "a", "out', {"input": "c", "output": "d"}
    )
    collection = Files(path=str(path)).collect(None)
    assert [e.input for e in collection.examples] == ["a", "c"]
    assert [q.item for q in collection.quarantined] == [f"{path}:2"]
    assert "not JSON" in collection.quarantined[0].reason


def test_rows_without_an_answer_or_a_question_are_set_aside(tmp_path):
    """An empty output, and a row with neither input nor instruction, are quarantined with the reason."""
    path = jsonl(
        tmp_path / "a.jsonl",
        {"input": "a", "output": " "},
        {"input": "", "output": "b"},
        {"input": "a"},
        {"input": "a", "output": "b"},
    )
    collection = Files(path=str(path)).collect(None)
    assert len(collection.examples) == 1
    assert [q.reason for q in collection.quarantined] == [
        "the output is empty",
        "nothing to ask: input and instruction are empty",
        "the output is empty",
    ]
    assert collection.quarantined[2].item == f"{path}:3"


def test_a_file_with_nothing_usable_is_an_error_with_the_reasons(tmp_path):
    """An empty file, and a file whose every row is set aside, end in an error that says why."""
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        Files(path=str(tmp_path / "empty.jsonl")).collect(None)
    jsonl(tmp_path / "bad.jsonl", "{", "[]")
    with pytest.raises(DataError, match=r"no usable row, 2 set aside .*bad\.jsonl:1: not JSON"):
        Files(path=str(tmp_path / "bad.jsonl")).collect(None)
    (tmp_path / "notes.xyz").write_text("hello")
    with pytest.raises(DataError, match=r"unknown suffix '\.xyz'.*\.parquet"):
        Files(path=str(tmp_path / "notes.xyz")).collect(None)


def test_a_folder_and_a_glob_read_their_files_in_order(tmp_path):
    """A folder gives all its files by name, a glob those that match; an unreadable file is set aside, not fatal."""
    for name in ("b", "a"):
        jsonl(tmp_path / f"{name}.jsonl", {"input": name, "output": "x"})
    (tmp_path / "c.jsonl").write_text("")
    (tmp_path / ".hidden").write_text("")
    collection = Files(path=str(tmp_path)).collect(None)
    assert [(e.input, e.provenance.index) for e in collection.examples] == [("a", 0), ("b", 1)]
    assert [Path(q.item).name for q in collection.quarantined] == ["c.jsonl"]
    assert [row[1] for row in rows_of(Files(path=str(tmp_path / "[b]*.jsonl")))] == ["b"]


def test_the_limit_is_a_number_of_rows(tmp_path):
    """Reading stops after the asked number of rows."""
    path = jsonl(tmp_path / "a.jsonl", *({"input": str(i), "output": "x"} for i in range(9)))
    assert [row[1] for row in rows_of(Files(path=str(path), limit=3))] == ["0", "1", "2"]


def test_values_that_are_not_text_become_text(tmp_path):
    """Numbers, booleans and objects are written as JSON, lists of texts as lines, null as nothing."""
    path = jsonl(
        tmp_path / "a.jsonl",
        {"input": 3, "output": True},
        {"input": ["a", "b"], "output": {"x": [1]}},
        {"input": None, "instruction": "Go.", "output": 0},
    )
    assert [row[1:] for row in rows_of(Files(path=str(path)))] == [("3", "true"), ("a\nb", '{"x":[1]}'), ("", "0")]


def test_dots_reach_into_nested_values_and_json_text(tmp_path):
    """A dotted column finds members and items, also inside a text that is JSON; a name with dots comes first."""
    row = {
        "chat": {"turns": [{"text": "hi"}, {"text": "ho"}]},
        "meta": '{"kind": "k"}',
        "a.b": "plain",
        "a": {"b": "no"},
    }
    columns = Columns(input="chat.turns.0.text", output="chat.turns.1.text", task="meta.kind", instruction="a.b")
    example = Files(path=str(jsonl(tmp_path / "a.jsonl", row)), columns=columns).collect(None).examples[0]
    assert (example.instruction, example.input, example.output, example.task) == ("plain", "hi", "ho", "k")


def test_a_path_is_needed_and_must_find_a_file(tmp_path):
    """No path and a path without files are refused before any work, with what to write."""
    with pytest.raises(ConfigError, match=r"source\.path is not set: .*source\.path=my\.csv"):
        Files().check()
    with pytest.raises(ConfigError, match="finds no file"):
        Files(path=str(tmp_path / "none*.csv")).check()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="finds no file"):
        Files(path=str(tmp_path / "empty")).check()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_any_text_comes_through_unchanged(tmp_path_factory, pairs):
    """Whatever a row says, quotes, line ends and other scripts included, reaches the example as it is."""
    path = tmp_path_factory.mktemp("any") / "a.csv"
    tables.write(path, [{"input": asked, "output": told} for asked, told in pairs])
    assert [row[1:] for row in rows_of(Files(path=str(path)))] == pairs


def test_answers_are_compared_without_case_and_space(tmp_path):
    """An answer equal but for case, white space and a full stop is right."""
    source = Files(path=str(jsonl(tmp_path / "a.jsonl", {"input": "a", "output": "New York"})))
    example = source.collect(None).examples[0]
    assert source.correct(example, " new  york.")
    assert not source.correct(example, "New Yorks")


def test_values_of_parquet_become_the_text_that_a_person_would_write(tmp_path):
    """Dates and times are in ISO 8601, decimals and large integers have all digits; none is in quotes."""
    from datetime import date, datetime
    from decimal import Decimal

    import pyarrow
    from pyarrow.parquet import write_table

    values = [date(2024, 1, 1), datetime(2024, 1, 1, 12, 30), Decimal("3.10"), 2**63 - 1]
    for index, value in enumerate(values):
        write_table(pyarrow.table({"input": ["q"], "output": [value]}), tmp_path / f"{index}.parquet")
    outputs = [output for _, _, output in rows_of(Files(path=str(tmp_path)))]
    assert outputs == ["2024-01-01", "2024-01-01T12:30:00", "3.10", "9223372036854775807"]


def test_large_integers_become_text_with_all_digits(tmp_path):
    """An integer beyond 64 bits, alone or nested, keeps its digits in the example."""
    large = 10**20 + 1
    path = jsonl(tmp_path / "a.jsonl", {"input": "q", "output": large}, {"input": "q", "output": {"é": [large]}})
    assert [row[2] for row in rows_of(Files(path=str(path)))] == [str(large), f'{{"é":[{large}]}}']


def test_conversations_are_recognised_and_their_faults_are_set_aside(tmp_path, caplog):
    """Lines of conversations need no mapping; one that is nested too deeply, or no Unicode, costs itself alone."""
    talk = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    deep = '{"text": ' + "[" * 900 + "]" * 900 + "}"
    path = jsonl(tmp_path / "a.jsonl", talk, deep, r'{"messages": [{"role": "user", "content": "\ud800"}]}')
    with caplog.at_level("INFO"):
        collection = Files(path=str(path)).collect(None)
    assert len(collection.examples) == 1
    assert [Path(one.item).name for one in collection.quarantined] == ["a.jsonl:2", "a.jsonl:3"]
    assert "recognised OpenAI messages in 1 rows: 1 conversations, 1 learned turns" in caplog.text
