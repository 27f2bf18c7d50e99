"""Scores survive the disk."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.metrics import METRICS, Measurement
from loraloop.errors import DataError
from loraloop.evaluation import store
from loraloop.records import Generation, Score

NUMBERS = st.floats(allow_nan=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
GENERATIONS = st.lists(st.builds(Generation, TEXT, TEXT, TEXT, TEXT, st.booleans()), max_size=3).map(tuple)
NAMES = st.sampled_from([*METRICS, "of_another_version"])
VALUES = st.dictionaries(NAMES, NUMBERS, max_size=3)
SLICES = st.dictionaries(TEXT, st.builds(Score, rows=st.integers(0, 99), values=VALUES, errors=VALUES), max_size=3)
SCORES = st.builds(Score, rows=st.integers(0, 99), values=VALUES, errors=VALUES, slices=SLICES, generations=GENERATIONS)


@given(SCORES)
@settings(max_examples=40, deadline=None)
def test_a_written_score_reads_back_equal(tmp_path_factory, score):
    """Every score, with infinities, empty slices and line breaks in answers, makes the round trip."""
    folder = tmp_path_factory.mktemp("score")
    store.write(score, folder)
    assert store.read(folder) == score


def test_files_are_json_that_any_reader_takes(tmp_path):
    """Infinity and NaN, which JSON lacks, are written as strings."""
    values = {**dict.fromkeys(METRICS, 0.5), "loss": math.nan, "perplexity": math.inf}
    store.write(Score(rows=1, values=values), tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    data = json.loads((tmp_path / "score.json").read_text(), parse_constant=refuse)
    assert (data["loss"], data["perplexity"], data["rows"]) == ("nan", "inf", 1)
    assert math.isnan(store.read(tmp_path)["loss"])


@pytest.mark.parametrize(
    ("name", "content"),
    [("score.json", "{}"), ("score.json", "[1]"), ("generations.jsonl", "{"), ("generations.jsonl", '{"task": "a"}')],
)
def test_an_unreadable_score_names_its_folder(tmp_path, name, content):
    """A damaged file is a data error that says where and what."""
    store.write(Score(rows=0, values=dict.fromkeys(METRICS, 0.5)), tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="holds no readable score"):
        store.read(tmp_path)


def test_a_folder_without_a_score_says_so(tmp_path):
    """A wrong folder is a data error, not a traceback."""
    with pytest.raises(DataError, match="holds no readable score"):
        store.read(tmp_path / "missing")


def test_a_cached_measurement_reads_back_equal(tmp_path):
    """Infinite likelihoods and missing rejected answers make the round trip through the cache."""
    measured = Measurement((1.5, math.inf), (3, 4), ("a\n", "é"), (None, 2.5))
    store.keep(tmp_path / "m.json", measured)
    assert store.recall(tmp_path / "m.json", 2) == measured
    assert store.recall(tmp_path / "m.json", 3) is None
    assert store.recall(tmp_path / "other.json", 2) is None


OLD = """{
 "rows": 4, "loss": 0.5, "perplexity": "inf", "exact_match": 0.25, "task_accuracy": 0.5, "rouge_l": 0.75,
 "bleu": 12.5, "chrf": 50.0,
 "slices": {"count": {"rows": 4.0, "loss": 0.5, "task_accuracy": 0.5, "preference_accuracy": 1.0}}
}"""
"""A score as it was written before it had standard errors."""


def test_a_score_of_an_earlier_version_is_read(tmp_path):
    """A flat score without standard errors keeps its rows, metrics and slices, so that old champions compare."""
    (tmp_path / "score.json").write_text(OLD)
    (tmp_path / "generations.jsonl").write_text("")
    score = store.read(tmp_path)
    assert (score.rows, score["task_accuracy"], score["perplexity"], score.errors) == (4, 0.5, math.inf, {})
    assert (score.slices["count"].rows, score.slices["count"]["preference_accuracy"]) == (4, 1.0)
