"""Row files: what is read is what was written, and damage is counted instead of swallowed."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loraloop.core import tables
from loraloop.errors import DataError

SUFFIXES = [".jsonl", ".json", ".csv", ".parquet", ".toon"]
HOSTILE = [
    "", " ", " lead", "trail ", '"', 'a"b', "a,b", "a\nb", "a\r\nb", "\r", "\t", "\\", "\\n", "1", "1.0", "-0", "007",
    "true", "null", "NaN", "-", "- a", "#x", "[1]", "[2]{a}:", "{a}", "a:b", "é", "☃", "\u2028", "\x00", "\x85",
    "\ufeff", "\U0001f600", "x" * 200_000,
]  # fmt: skip

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(HOSTILE[:-1])
relaxed = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def strict(line: int, reason: str) -> None:
    raise AssertionError(f"line {line}: {reason}")


def read(path: Path) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """The rows, and what was reported as bad."""
    bad: list[tuple[int, str]] = []
    return list(tables.read(path, lambda line, reason: bad.append((line, reason)))), bad


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hostile_strings_survive(tmp_path, suffix):
    """Quotes, delimiters, line ends, number-like, blank and very long strings come back as the same strings."""
    rows = [{"a": value, "b": "x"} for value in HOSTILE] + [{"a": "x", "b": value} for value in HOSTILE]
    tables.write(tmp_path / f"x{suffix}", rows)
    assert list(tables.read(tmp_path / f"x{suffix}", strict)) == rows


@pytest.mark.parametrize("suffix", SUFFIXES)
@relaxed
@given(rows=st.lists(st.fixed_dictionaries({"input": text, "output": text, "a b": text}), min_size=1, max_size=8))
def test_any_text_survives(tmp_path, suffix, rows):
    """Every format returns any rows of Unicode text unchanged."""
    tables.write(tmp_path / f"x{suffix}", rows)
    assert list(tables.read(tmp_path / f"x{suffix}", strict)) == rows


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".toon"])
@relaxed
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                "x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "flag": st.booleans(),
                "s": st.none() | text,
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_typed_values_survive(tmp_path, suffix, rows):
    """The typed formats keep numbers, booleans and nulls."""
    tables.write(tmp_path / f"x{suffix}", rows)
    assert list(tables.read(tmp_path / f"x{suffix}", strict)) == rows


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".toon"])
def test_columns_are_the_union_of_the_keys(tmp_path, suffix):
    """A key that only some rows have becomes a column, null (empty in CSV) elsewhere."""
    tables.write(tmp_path / f"x{suffix}", [{"a": "1"}, {"b": "2", "a": "3"}])
    empty = "" if suffix == ".csv" else None
    assert list(tables.read(tmp_path / f"x{suffix}", strict)) == [{"a": "1", "b": empty}, {"a": "3", "b": "2"}]


def test_corrupt_jsonl_lines_are_reported_and_the_rest_is_read(tmp_path):
    """Truncated, non-object and non-UTF-8 lines are reported by number; a BOM and blank lines are no rows."""
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a":1}\n{"a":\n\n[1]\n{"b":"\xe9"}\n{"c":3}')
    rows, bad = read(tmp_path / "x.jsonl")
    assert rows == [{"a": 1}, {"c": 3}]
    assert [line for line, _ in bad] == [2, 4, 5]
    assert "list" in bad[1][1]


def test_corrupt_csv_rows_are_reported_and_the_rest_is_read(tmp_path):
    """Too many and too few cells, a broken quote and foreign bytes are reported with the line where the row begins."""
    (tmp_path / "x.csv").write_bytes(b'a,b\n"1\n1",2\n1,2,3\n1\n"x"y,2\n\xe9,2\n\n5,6\n"7,8\n9,9\n')
    rows, bad = read(tmp_path / "x.csv")
    assert rows == [{"a": "1\n1", "b": "2"}, {"a": "5", "b": "6"}]
    assert [line for line, _ in bad] == [4, 5, 6, 7, 10]
    assert "3 cells, the header has 2" in bad[0][1]
    assert "ends on line 11" in bad[-1][1]


def test_a_damaged_toon_table_is_read_row_by_row(tmp_path):
    """A broken row and a missing row of a TOON table are reported, and the others are read."""
    (tmp_path / "x.toon").write_text('[5]{a,b}:\n  1,2\n  3\n  "4,5\n  x,"6,7"\n')
    rows, bad = read(tmp_path / "x.toon")
    assert rows == [{"a": 1, "b": 2}, {"a": "x", "b": "6,7"}]
    assert [line for line, _ in bad] == [1, 3, 4]
    assert "declares 5 rows, 4 follow" in bad[0][1]


def test_rows_of_json_that_are_no_objects_are_reported(tmp_path):
    """A list's members that are not objects are reported by their place."""
    (tmp_path / "x.json").write_text('[{"a": 1}, 7]')
    assert read(tmp_path / "x.json") == ([{"a": 1}], [(2, "not an object of named values but int")])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.xlsx", b"x", "known ones are .jsonl, .json, .csv, .parquet, .toon"),
        ("x.jsonl", b"", "0 bytes"),
        ("x.json", b'{"a": 1}', "holds one dict where a list of objects is needed"),
        ("x.json", b'{"a": 1}\n{"a": 2}', "name it .jsonl"),
        ("x.json", b'["\xe9"]', "save the file as UTF-8"),
        ("x.csv", b"a,a\n1,2\n", "names 'a' more than once"),
        ("x.parquet", b"PAR1 but not really PAR1", "not a readable Parquet file"),
        ("x.toon", b'key: "open', "is not TOON"),
        ("x.toon", b"key: 1", "holds one dict"),
    ],
)
def test_an_unusable_file_is_refused_with_the_way_out(tmp_path, name, content, says):
    """A file that cannot be read as a whole raises one error that names it and says why."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"x\.\w+") as caught:
        list(tables.read(tmp_path / name, strict))
    assert says in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_at_once(tmp_path):
    """A path without a file behind it is refused when the reader is made, not at its first row."""
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="no such file"):
        tables.read(tmp_path / "missing.csv", strict)
    with pytest.raises(DataError, match="is a folder"):
        tables.read(tmp_path / "folder.csv", strict)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x.csv", [1]),
        ("x.jsonl", {1, 2}),
        ("x.json", "\ud83d"),
        ("x.csv", "\ud83d"),
        ("x.parquet", 2**70),
        ("x.toon", "\ud83d"),
    ],
)
def test_a_value_that_a_format_cannot_hold_is_refused(tmp_path, name, value):
    """A nested CSV cell, a foreign type, half a surrogate pair or a too large integer leaves no file behind."""
    with pytest.raises(DataError, match="a value cannot be kept"):
        tables.write(tmp_path / name, [{"a": value}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_earlier_file(tmp_path, suffix, monkeypatch):
    """On a full disk the earlier file stays intact, nothing half-written is left, and the error says what to free."""
    path = tmp_path / f"x{suffix}"
    tables.write(path, [{"a": "old"}])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=f"no space left on the disk of {tmp_path} .* free space there"):
            tables.write(path, [{"a": "new"}])
    assert list(tmp_path.iterdir()) == [path]
    assert list(tables.read(path, strict)) == [{"a": "old"}]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_really_full_device_is_reported(suffix):
    """A write that the kernel itself refuses for lack of space becomes the same error in every format."""
    rows = [{"a": str(number) * 50} for number in range(2000)]
    writer = tables._WRITERS[suffix]
    device = Path("/dev/full")
    with pytest.raises(DataError, match="no space left"), tables.writing(device), device.open("wb") as stream:
        writer(stream, rows)


def test_an_unwritable_place_is_refused(tmp_path):
    """A path below a file is refused with the system's reason."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"x\.csv cannot be written: "):
        tables.write(tmp_path / "file" / "x.csv", [{"a": 1}])


def test_toon_is_about_forty_percent_smaller_than_json(tmp_path):
    """Uniform rows with provenance take at least 40% fewer bytes as TOON than as compact JSON, 50% than as indented."""
    rows = [
        {
            "input": f"{number:032b}".replace("0", "T").replace("1", "H"),
            "output": f"{number.bit_count()} heads, {32 - number.bit_count()} tails",
            "task": "count",
            "split": "train",
            "source": "flips",
            "seed": 0,
            "index": number,
            "image_path": None,
        }
        for number in range(2000)
    ]
    tables.write(tmp_path / "x.toon", rows)
    toon = (tmp_path / "x.toon").stat().st_size
    assert 1 - toon / len(orjson.dumps(rows)) >= 0.4
    assert 1 - toon / len(json.dumps(rows, indent=2)) >= 0.5


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_csv_may_be_separated_otherwise(tmp_path, separator):
    """Semicolons, tabs and bars separate cells where no comma does."""
    path = tmp_path / "a.csv"
    path.write_text(f"input{separator}output\na{separator}b\n")
    assert read(path) == ([{"input": "a", "output": "b"}], [])


def test_what_spreadsheets_add_to_a_csv_is_no_data(tmp_path):
    """Excel's ``sep=`` line, blanks around names and unnamed empty columns at the end are left out."""
    path = tmp_path / "a.csv"
    path.write_text("sep=;\r\n input ; output;;\r\na;b;;\r\nc;d;;x\r\n")
    assert read(path) == ([{"input": "a", "output": "b"}], [(4, "4 cells, the header has 2")])


@pytest.mark.parametrize("text", ['[{"a": 1},\n {"a": 2}]', '{\n"a": 1\n}\n{\n"a": 2\n}\n', '[{"a": 1}, {"a": 2}]\n'])
def test_a_jsonl_may_hold_a_list_or_objects_over_several_lines(tmp_path, text):
    """JSON values that span lines, and one list of objects, are read from a ``.jsonl`` as they are meant."""
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    assert read(path) == ([{"a": 1}, {"a": 2}], [])


def test_a_row_has_the_line_that_it_begins_on(tmp_path):
    """Rows of text files are numbered by their lines, those that are set aside and blank ones counted."""
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\nbroken\n{"a": 2}\n')
    (tmp_path / "b.jsonl").write_text('{\n"a": 1\n}\n{\n"a": 2\n}\n')
    (tmp_path / "c.csv").write_text('a,b\n"x\ny",1\nz,2\n')
    found = {path.name: [number for number, _ in tables.numbered(path, lambda *_: None)] for path in tmp_path.iterdir()}
    assert found == {"a.jsonl": [1, 4], "b.jsonl": [1, 4], "c.csv": [2, 4]}


@given(st.integers(-(10**40), 10**40))
def test_integers_keep_their_digits(tmp_path_factory, value):
    """An integer of any size comes back as the same integer from JSON."""
    folder = tmp_path_factory.mktemp("integers")
    (folder / "a.jsonl").write_text(f'{{"a": {value}}}\n')
    (folder / "a.json").write_text(f'[{{"a": {value}}}]')
    assert read(folder / "a.jsonl") == read(folder / "a.json") == ([{"a": value}], [])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_row_with_nan_is_set_aside_alone(tmp_path, name):
    """NaN is no JSON: its row is reported with the name of the value, and the others are read."""
    rows = ['{"a": 1, "b": NaN}', '{"a": 2, "b": 3}']
    (tmp_path / name).write_text("\n".join(rows) if name == "a.jsonl" else f"[{', '.join(rows)}]")
    good, bad = read(tmp_path / name)
    assert good == [{"a": 2, "b": 3}]
    assert bad == [(1, "not JSON: b holds NaN or Infinity; write null, or a number")]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.toon"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_named_with_the_way_out(tmp_path, name, encoding):
    """A file in UTF-16 or UTF-32 is refused by the name of its encoding, with the command that converts it."""
    (tmp_path / name).write_text("a,b\n1,2\n", encoding)
    with pytest.raises(DataError, match=f"is {encoding.upper()}, not UTF-8.*iconv -f {encoding.upper()} -t UTF-8"):
        read(tmp_path / name)


def test_a_latin_1_file_is_named_with_the_way_out(tmp_path):
    """A line of JSON and a header of CSV in Latin-1 are reported as such, with the command that converts them."""
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "caf\xe9"}\n{"a": "b"}\n')
    good, bad = read(tmp_path / "a.jsonl")
    assert good == [{"a": "b"}]
    assert "not UTF-8 (byte 10), perhaps Latin-1" in bad[0][1]
    assert "iconv -f LATIN1" in bad[0][1]
    (tmp_path / "a.csv").write_bytes(b"caf\xe9,b\n1,2\n")
    with pytest.raises(DataError, match="the header is not UTF-8, perhaps Latin-1"):
        read(tmp_path / "a.csv")


def test_short_floats_of_parquet_are_the_decimals_that_were_meant(tmp_path):
    """0.1 in 32 or 16 bits comes back as 0.1, and null as null."""
    import numpy as np
    import pyarrow
    from pyarrow.parquet import write_table

    columns = {"a": pyarrow.array([0.1, None], pyarrow.float32()), "b": pyarrow.array([np.float16(0.1), None])}
    write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ([{"a": 0.1, "b": 0.1}, {"a": None, "b": None}], [])
