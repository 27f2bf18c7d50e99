"""Values as people read them."""

import json
import math
import os

import pytest

from loraloop.core import console
from loraloop.core.console import value_with_error
from loraloop.records import Quarantined


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.8938, 0.0122, "0.894 ± 0.012"),
        (94.308, 0.7, "94.31 ± 0.70"),
        (0.0228, 0.0011, "0.0228 ± 0.0011"),
        (1.0, 0.0, "1.000 ± 0.000"),
        (4887.2, 12.3, "4887 ± 12"),
        (0.25, None, "0.2500"),
        (4887.25, None, "4887"),
        (math.inf, 1.0, "inf"),
        (0.5, math.nan, "0.5000"),
    ],
)
def test_a_value_has_the_decimals_that_its_error_allows(value, error, shown):
    """The error is shown with two significant digits and the value with as many decimals; without one, four."""
    assert value_with_error(value, error) == shown


def test_further_lines_of_a_value_stand_below_its_first(capsys):
    """A value of several lines keeps its column, so that none of them reads as another name."""
    console.facts("an answer", {"text": "a\nb", "by": "m"})
    assert capsys.readouterr().out == "an answer\n  text  a\n        b\n  by    m\n"


def test_a_list_that_is_cut_says_how_many_more_and_where_all_are(tmp_path, capsys):
    """Beyond three names and ten reasons the rest is counted, and every item stands in the file that is named."""
    items = [Quarantined(f"row {index}", "too long") for index in range(5)]
    items += [Quarantined(f"file {index}", f"reason {index}") for index in range(12)]
    console.quarantine(items, every=tmp_path / "quarantined.jsonl")
    said = capsys.readouterr().out
    assert "  5 x too long: row 0, row 1, row 2 and 2 more\n" in said
    assert "  3 for 3 other reasons\n" in said
    assert f"  all of them: {tmp_path}/quarantined.jsonl\n" in said
    kept = [json.loads(line) for line in (tmp_path / "quarantined.jsonl").read_text().splitlines()]
    assert [(each["item"], each["reason"]) for each in kept] == [(each.item, each.reason) for each in items]


def test_a_short_list_writes_no_file(tmp_path, capsys):
    """Where all items are printed, no file is written."""
    console.quarantine([Quarantined("row 1", "empty")], every=tmp_path / "quarantined.jsonl")
    assert capsys.readouterr().out == "quarantined: 1\n  1 x empty: row 1\n"
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_text_is_kept_escaped(tmp_path):
    """A file's name with bytes that are not UTF-8 is written with each of them escaped."""
    items = [Quarantined(os.fsdecode(b"caf\xe9.csv"), "bad")] * 4
    console.quarantine(items, every=tmp_path / "all.jsonl")
    assert json.loads((tmp_path / "all.jsonl").read_text().splitlines()[0])["item"] == "caf\\xe9.csv"
