"""loraloop's values as MLflow takes them."""

from __future__ import annotations

import io
import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.tracker.mlflow_format import KEY_CHARACTERS, PARAM_CHARACTERS, cut, digest, legal, split_orient


class TestLegal:
    """Names."""

    @settings(deadline=None)
    @given(key=st.text(max_size=300) | st.text(alphabet="./a ~", max_size=20))
    def test_mlflow_accepts_every_name(self, key):
        """Whatever the key, MLflow's own validation takes what comes out, and it is not longer than allowed."""
        from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

        name = legal(key)
        _validate_param_name(name)
        _validate_metric_name(name)
        _validate_tag_name(name)
        assert len(name) <= KEY_CHARACTERS

    def test_ordinary_names_stay(self):
        """Names in the house's style come through unchanged."""
        for name in ("lora.r", "train/loss", "final/exact_match", "mlflow.note.content", "slice: count"):
            assert legal(name) == name


class TestCut:
    """Long values."""

    @settings(deadline=None)
    @given(text=st.text(max_size=50), limit=st.integers(1, 40))
    def test_never_longer_and_marked(self, text, limit):
        """A short text is unchanged; a long one fills the limit and ends in an ellipsis."""
        short = cut(text, limit)
        assert short == text if len(text) <= limit else (len(short) == limit and short.endswith("…"))

    def test_six_thousand_characters_fit(self):
        """A value of exactly 6,000 characters is not cut."""
        assert cut("x" * PARAM_CHARACTERS, PARAM_CHARACTERS) == "x" * PARAM_CHARACTERS


class TestDigest:
    """A dataset's digest."""

    @settings(deadline=None)
    @given(fingerprint=st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
    def test_fits_and_tells_the_sides_apart(self, fingerprint):
        """A digest has at most 36 characters, starts like the fingerprint and differs between contexts."""
        training, validation = digest(fingerprint, "training"), digest(fingerprint, "validation")
        assert max(len(training), len(validation)) <= 36
        assert training[:25] == validation[:25] == fingerprint[:25]
        assert training != validation


class TestSplitOrient:
    """Tables."""

    @settings(deadline=None)
    @given(
        rows=st.lists(
            st.fixed_dictionaries(
                {"prompt": st.text(max_size=10), "loss": st.floats(), "correct": st.booleans()},
                optional={"note": st.none() | st.integers(-(2**31), 2**31)},
            ),
            max_size=5,
        )
    )
    def test_is_strict_json_of_equal_rows(self, rows):
        """Every row has every column, and what JSON cannot say (NaN, infinity, a missing value) is null."""
        table = json.loads(split_orient(rows), parse_constant=lambda name: f"not JSON: {name}")
        assert table["columns"] == list(dict.fromkeys(name for row in rows for name in row))
        for row, data in zip(rows, table["data"], strict=True):
            for name, value in zip(table["columns"], data, strict=True):
                finite = row.get(name) if name != "loss" or np.isfinite(row["loss"]) else None
                assert value == finite

    def test_pandas_reads_it_as_mlflow_does(self):
        """The text loads with the reader that MLflow's ``load_table`` uses, NumPy scalars included."""
        import pandas as pd

        text = split_orient([{"task": "count", "loss": np.float32(0.5)}, {"task": "parity", "loss": np.float32(1.5)}])
        frame = pd.read_json(io.StringIO(text), orient="split")
        assert frame.to_dict("list") == {"task": ["count", "parity"], "loss": [0.5, 1.5]}
