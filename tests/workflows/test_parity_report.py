"""Whether an export is accepted."""

from dataclasses import replace

import pytest

from loraloop.errors import ArtefactError
from loraloop.records import Parity
from loraloop.workflows import parity_report


def made(agreement, least, rows=64):
    return Parity(
        runtime="llama_cpp",
        form="gguf",
        dtype="q4_k_m",
        versions={},
        machine="",
        measured="",
        rows=rows,
        agreement=agreement,
        min_agreement=least,
        scores={},
        logits=None,
        load_seconds=1.0,
        tokens_per_second=1.0,
        bytes=1,
    )


def test_too_few_equal_answers_are_refused():
    """Below the share that is asked for, the message has both shares and the key; at it, nothing is refused."""
    parity_report.require(made(0.90625, 0.9), "x", "publish.min_agreement")
    wrong = r"refused: 58 of 64 .* \(0.906, at least 0.98 asked\); it was not published.* publish.min_agreement=SHARE"
    with pytest.raises(ArtefactError, match=wrong):
        parity_report.require(made(0.90625, 0.98), "it was not published", "publish.min_agreement")


@pytest.mark.parametrize(
    ("rows", "least", "told"), [(49, 0.98, "fewer than 50 rows"), (9, 0.9, "fewer than 10"), (8, 1, "")]
)
def test_few_rows_are_told(rows, least, told):
    """Where a single other answer is too many, the message says how many rows would be enough; else nothing."""
    with pytest.raises(ArtefactError) as refused:
        parity_report.require(made(1 - 1 / rows, least, rows), "it was not published", "min_agreement")
    assert told in str(refused.value)
    assert ("a single other answer" in str(refused.value)) == bool(told)


@pytest.mark.parametrize(
    ("agreement", "dtype", "told"),
    [
        (0.5, "q8_0", "Export it in a wider publish.dtype, or accept less with min_agreement=SHARE"),
        (0.5, "float32", "; x. Accept less with min_agreement=SHARE"),
        (0.0, "float32", "No answer is equal, which rounding does not explain"),
    ],
)
def test_the_way_out_fits_the_case(agreement, dtype, told):
    """A wider type is proposed where there is one, and no smaller share where nothing at all is equal."""
    with pytest.raises(ArtefactError) as refused:
        parity_report.require(replace(made(agreement, 0.98), dtype=dtype), "x", "min_agreement")
    assert told in str(refused.value)
    assert "a single other answer" not in str(refused.value)
