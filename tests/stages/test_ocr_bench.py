"""The stage that measures OCR on this machine."""

import json
from pathlib import Path

import pytest
from PIL import Image

from loraloop.core.progress import Progress
from loraloop.source.vault import benchmark_data
from loraloop.source.vault.pictures import png
from loraloop.workflows.ocr_benchmark import engines, measure


@pytest.fixture(scope="module")
def seen(office):
    """The smallest run: two pictures, one of them timed, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "ROUNDS", 1)
        return office("stage=ocr_bench", "pictures=2", "documents=0", "timed=1")


@pytest.fixture(scope="module")
def report(seen, office):
    return json.loads((office.folder / seen.line("numbers")).read_text())


def test_every_engine_is_judged_on_every_kind(report):
    """Each row of pictures has an error for each kind that was drawn, and the mean of all."""
    assert list(report["pictures"]) == list(engines.for_pictures())
    assert report["half"] == "held_out"
    for row in report["pictures"].values():
        assert set(row) == {"all", "> 95%", "clean", "small"}
        assert row["all"] == pytest.approx((row["clean"] + row["small"]) / 2, abs=1e-4)
    assert report["pictures"]["tesseract_psm6"]["all"] < 0.02


def test_every_engine_reads_documents(tmp_path):
    """Each row of documents has F1 for the layout, in order too, and its distance from plain Tesseract."""
    case = benchmark_data.document(benchmark_data.TUNE, 5)
    (tmp_path / "receipt.png").write_bytes(png(case.pixels))
    samples = [measure.Sample(tmp_path / "receipt.png", case.kind, case.text)]
    results = measure.document_words(samples, Progress("reading", "page"))
    assert list(results) == list(engines.for_documents())
    for row in results.values():
        assert set(row) == {"all", "in order", "least - plain", "receipt"}
        assert 0 <= row["in order"] <= row["all"] <= 1
        assert row["least - plain"] == pytest.approx(
            row["all"] - max(results[name]["all"] for name in engines.BASELINES), abs=1e-4
        )
    assert results["tesseract_auto"]["in order"] > 0.95 > results["tesseract_psm3"]["in order"]


def test_speed_is_measured_for_every_row(report):
    """Each speed row has a rate, and preprocessing takes a part of the time."""
    assert list(report["speed"]["images_per_second"]) == list(engines.for_speed())
    assert min(report["speed"]["images_per_second"].values()) > 0
    assert 0 < report["speed"]["preprocessing_share"] < 1


def test_the_tables_say_what_the_file_says(seen, report):
    """The printed cells are the numbers of the file, and the faces that were drawn with are named."""
    errors = [f"{100 * row['clean']:.2f}" for row in report["pictures"].values()]
    assert seen.cells("clean") == errors
    for face in report["fonts"]:
        assert Path(face).stem in seen.out


def test_a_plot_is_left(seen, office):
    """The plot is a picture of 1200 x 450 pixels."""
    with Image.open(office.folder / seen.line("plot")) as plot:
        assert plot.size == (1200, 450)


def test_an_unknown_half_is_refused(office):
    """A half that is none is named with those that there are."""
    refused = office.attempt("stage=ocr_bench", "half=mine")
    assert refused.code == 2
    assert "half=mine: there are held_out, tune" in refused.err
