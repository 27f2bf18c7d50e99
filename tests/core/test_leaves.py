"""Pages of files that hold several, as paths of their own."""

import sys

import pytest
from PIL import Image

from loraloop.core import leaves
from loraloop.errors import MissingDependencyError


def pages() -> list[Image.Image]:
    """Two pages, made anew: Pillow leaves a format's settings on a picture that it saved."""
    return [Image.new("L", (90, 60), 255), Image.new("L", (60, 90), 128)]


@pytest.mark.parametrize("name", ["scan.tiff", "SCAN.TIF", "book.pdf"])
def test_each_page_of_several_is_a_path(name, tmp_path):
    """A TIFF or PDF of two pages is two paths, which lead back to the file and the page's number."""
    file = tmp_path / name
    first, second = pages()
    first.save(file, save_all=True, append_images=[second])
    found = leaves.apart(file)
    assert [page.name for page in found] == [f"{name}#1", f"{name}#2"]
    assert [leaves.located(page) for page in found] == [(file, 1), (file, 2)]


@pytest.mark.parametrize("name", ["one.tiff", "one.pdf", "torn.tiff", "torn.pdf", "two.gif"])
def test_any_other_file_stays_whole(name, tmp_path):
    """One page, a file that cannot be opened, and an animation are one path."""
    file = tmp_path / name
    if "torn" in name:
        file.write_bytes(b"%PDF-II*\0")
    else:
        first, second = pages()
        first.save(file, save_all="two" in name, append_images=[second] if "two" in name else [])
    assert leaves.apart(file) == [file]


def test_a_file_whose_own_name_looks_like_a_page_is_a_file(tmp_path):
    """``scan.png#2`` that is there is itself, and one that leads to no file is left as it is."""
    for name in ("scan.png", "scan.png#2"):
        (tmp_path / name).touch()
    for name in ("scan.png#2", "scan.png#0", "none.png#1", "scan.png#x", "#3"):
        assert leaves.located(tmp_path / name) == (tmp_path / name, None)


def test_a_page_of_a_pdf_is_rendered_at_300_dots_per_inch(tmp_path):
    """A page of 3 by 2 inches is 900 by 600 pixels with its own grey, and one beyond the last is refused."""
    pages()[1].resize((300, 200)).save(tmp_path / "a.pdf", resolution=100)
    size = leaves.pdf_image(tmp_path / "a.pdf", 1).size
    assert leaves.pdf_size(tmp_path / "a.pdf", 1) == size == pytest.approx((900, 600), abs=1)
    assert leaves.pdf_image(tmp_path / "a.pdf", 1).getpixel((450, 300)) == pytest.approx((128, 128, 128), abs=3)
    with pytest.raises(ValueError, match="it has 1 pages"):
        leaves.pdf_size(tmp_path / "a.pdf", 2)


def test_without_the_extra_a_pdf_stays_whole_and_names_it(tmp_path, monkeypatch):
    """Where pypdfium2 is not installed, a PDF is one path, and reading it says what to install."""
    first, second = pages()
    first.save(tmp_path / "a.pdf", save_all=True, append_images=[second])
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    assert leaves.apart(tmp_path / "a.pdf") == [tmp_path / "a.pdf"]
    with pytest.raises(MissingDependencyError, match=r"pip install 'loraloop\[pdf\]'"):
        leaves.pdf_size(tmp_path / "a.pdf", 1)
