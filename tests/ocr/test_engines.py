"""Every engine behind the Ocr protocol, and the engines against each other."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.errors import MissingDependencyError
from loraloop.ocr import installed
from loraloop.ocr.engines import Found, _from_lines, _from_table
from loraloop.ocr.rapid import RapidOcr
from loraloop.ocr.reading import Reading
from loraloop.ocr.score import character_error
from loraloop.ocr.tesseract import Tesseract
from loraloop.source.vault import benchmark_data
from loraloop.source.vault.pictures import png

ENGINES = {
    "tesserocr": Tesseract(engine="tesserocr", cache=None, workers=1),
    "pytesseract": Tesseract(engine="pytesseract", cache=None, workers=1),
    "auto layout": Tesseract(psm="auto", cache=None, workers=1),
    "rapidocr": RapidOcr(cache=None, workers=1),
}
CLEAN = [0, 5, 4]
"""Numbers of the test set's pictures that every engine reads well."""

# A program of the library's own version, which the system's may not have.
PROGRAM = """#!{python}
import sys
from pathlib import Path
import tesserocr
if sys.argv[1:] == ["--version"]:
    sys.exit(print(tesserocr.tesseract_version()))
image, base, *options = sys.argv[1:]
known = dict(zip(options[:-1], options[1:]))
api = tesserocr.PyTessBaseAPI(path={data!r}, lang=known["-l"], psm=int(known["--psm"]))
api.SetImageFile(image)
Path(base + ".tsv").write_text("level\\tpage_num\\n" + api.GetTSVText(0), "utf8")
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten degraded pictures of the half that was tuned on, one of each kind, and a torn one."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(10):
        (folder / f"{index:02d}.png").write_bytes(png(benchmark_data.case(benchmark_data.TUNE, index).pixels))
    (folder / "torn.png").write_bytes((folder / "00.png").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module", params=ENGINES.values(), ids=ENGINES)
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def pages(engine, pictures):
    """Three good pictures, a torn and a missing one, read once by each engine."""
    images = [*(pictures / f"{index:02d}.png" for index in CLEAN), pictures / "torn.png", pictures / "missing.png"]
    return list(engine.read(images))


class TestContract:
    """What every engine promises."""

    def test_pages_are_whole_and_in_order(self, pages):
        """Pages come in the order of the images; good ones carry text, confidence, size, engine, steps and seconds."""
        assert [Path(page.image).name for page in pages] == ["00.png", "05.png", "04.png", "torn.png", "missing.png"]
        for page, index in zip(pages[:3], CLEAN, strict=True):
            case = benchmark_data.case(benchmark_data.TUNE, index)
            assert character_error(case.text, page.text) < 0.03
            assert (page.height, page.width) == case.pixels.shape[:2]
            assert 80 < page.confidence <= 100
            assert page.steps[0] == "gray"
            assert page.seconds > 0
            assert page.engine.split()[1][0].isdigit()

    def test_unreadable_images_are_quarantined(self, pages):
        """A torn and a missing image give a page with a reason and no text."""
        assert [page.status for page in pages] == ["ok"] * 3 + ["quarantined"] * 2
        assert all(page.reason and not page.text for page in pages[3:])

    def test_words_lie_on_the_picture(self, pages):
        """The words spell the text in order, and every box lies within the original picture."""
        for page in pages[:3]:
            assert " ".join(word.text for word in page.words).split() == page.text.split()
            for word in page.words:
                left, top, width, height = word.box
                assert 0 <= left < left + width <= page.width
                assert 0 <= top < top + height <= page.height
                assert 0 <= word.confidence <= 100

    def test_the_check_passes(self, engine):
        """The engines that the tests install are found."""
        engine.check()


def test_library_and_program_give_the_same_words(pictures, tmp_path, monkeypatch):
    """On one version of Tesseract both ways give equal text, confidences and boxes for ten pictures."""
    program = tmp_path / "tesseract"
    real = installed.data()
    program.write_text(PROGRAM.format(python=sys.executable, data=real))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    images = sorted(pictures.glob("??.png"))
    by_library = list(Tesseract(engine="tesserocr", cache=None).read(images))
    shared = Tesseract(engine="pytesseract", cache=None)._pages(
        images, engine="pytesseract", name="tesseract", data="", psm=6, language="eng"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for mine, theirs in zip(by_library, shared, strict=True):
        assert (theirs.status, theirs.reason) == ("ok", "")
        assert (mine.text, mine.words, mine.steps) == (theirs.text, theirs.words, theirs.steps)


def test_a_page_reads_the_same_after_any_other(pictures):
    """The library is kept between pages and remembers none: forwards and backwards the texts are equal."""
    images = sorted(pictures.glob("??.png"))[:4]
    ocr = Tesseract(engine="tesserocr", cache=None, workers=1)
    forwards, backwards = list(ocr.read(images)), list(ocr.read(images[::-1]))
    assert [page.words for page in forwards] == [page.words for page in backwards[::-1]]


def test_the_engine_and_its_version_are_recorded(pictures):
    """A page says which engine read it, by which way and in which version."""
    [page] = Tesseract(cache=None).read([pictures / "00.png"])
    assert page.engine == installed.tesseract_name("tesserocr")
    assert installed.tesseract_name("tesserocr").endswith("(tesserocr)")
    assert installed.tesseract_name("pytesseract").endswith("(pytesseract)")
    assert installed.rapidocr_name().split()[0] == "rapidocr"


def test_pages_of_little_confidence_are_read_again(pictures):
    """With a fallback, pages below the confidence come from the second engine, and the others stay."""
    images = [pictures / "00.png", pictures / "03.png"]
    first = [page.confidence for page in Tesseract(cache=None).read(images)]
    between = sum(first) / 2
    pages = list(Tesseract(cache=None, fallback="rapidocr", fallback_below=between).read(images))
    assert [page.engine.split()[0] for page in pages] == [
        "rapidocr" if confidence < between else "tesseract" for confidence in first
    ]
    assert len({page.engine for page in pages}) == 2


def test_auto_takes_the_library_where_it_is(monkeypatch):
    """``engine=auto`` is tesserocr where it is installed and pytesseract otherwise; asking for a missing one fails."""
    assert installed.tesseract("auto", "eng") == "tesserocr"
    monkeypatch.setattr(installed, "_importable", lambda module: False)
    assert installed.tesseract("auto", "eng") == "pytesseract"
    with pytest.raises(MissingDependencyError, match=r"pip install 'loraloop\[tesserocr\]'"):
        Tesseract(engine="tesserocr").check()
    with pytest.raises(MissingDependencyError, match=r"^ocr: rapidocr.*pip install 'loraloop\[rapidocr\]'"):
        RapidOcr().check()
    with pytest.raises(MissingDependencyError, match=r"^ocr.fallback=rapidocr: .*pip install 'loraloop\[rapidocr\]'"):
        Tesseract(fallback="rapidocr").check()


def test_language_data_is_found_without_the_program(monkeypatch, tmp_path):
    """Where the program is missing, ``TESSDATA_PREFIX`` leads the library to its data."""
    data = installed.data()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TESSDATA_PREFIX", data)
    assert installed.tesseract("auto", "eng") == "tesserocr"
    assert installed.data() == data


@pytest.mark.parametrize("workers", [1, 2])
def test_pages_are_streamed(pictures, workers):
    """However long the stream of images, only a few per worker are taken before their pages are given out."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield pictures / "torn.png"

    ocr = Reading(cache=None, workers=workers)
    pages = ocr._pages(endless(), engine="tesserocr", name="tesseract", data="", psm=6, language="eng")
    ahead = [taken - given for given, _ in enumerate(zip(range(300), pages, strict=False), 1)]
    assert max(ahead) <= 4 * workers + 1
    pages.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=5),
            st.floats(-1, 100).map(lambda value: round(value, 2)),
            st.tuples(*[st.integers(0, 999)] * 4),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_tesseracts_table_is_read_as_it_was_written(words):
    """Every word row gives its text, confidence and box, on the line that was opened last; other rows give none."""
    rows = ["level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"]
    expected, line = [], 0
    for text, confidence, box, opens in words:
        if opens:
            rows.append("\t".join(["4", *"11110", *map(str, box), "-1", ""]))
            line += 1
        rows.append("\t".join(["5", *"11111", *map(str, box), str(confidence), text]))
        expected.append(Found(text, max(0.0, confidence), box, line))
    assert _from_table("\n".join(rows)) == expected


def test_pieces_side_by_side_are_one_line():
    """Pieces whose middles are level are read from the left as one line; a lower piece begins the next."""

    def piece(text, left, top):
        return [(text, 0.9, [[left, top], [left + 50, top], [left + 50, top + 20], [left, top + 20]])]

    found = _from_lines([piece("right", 100, 12), piece("left", 10, 10), piece("below", 10, 40)])
    assert [(word.text, word.line) for word in found] == [("left", 0), ("right", 0), ("below", 2)]
    assert found[0] == Found("left", 90.0, (10, 10, 50, 20), 0)
