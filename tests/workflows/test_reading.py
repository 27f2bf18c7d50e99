"""The summary of pages that were read."""

from pathlib import Path

from loraloop.workflows.reading import Tally


def test_pages_that_are_hardly_read_are_named(capsys):
    """Pages of low confidence are named with what to look at; a blank page and one set aside are not among them."""
    tally = Tally()
    page = {"status": "ok", "text": "NpusBet mup", "confidence": 59.3}
    for name, row in {
        "letter.png": page,
        "other.png": page,
        "sure.png": page | {"confidence": 95.0},
        "blank.png": page | {"text": "", "confidence": 0.0},
        "torn.png": page | {"status": "quarantined", "reason": "is damaged"},
    }.items():
        tally.add(row | {"image": name}, kept=False)
    tally.show(Path("pages.jsonl"), 1.0)
    said = capsys.readouterr().out
    assert "letter.png and 1 more: confidence below 70; is it writing that ocr.language names?" in said
