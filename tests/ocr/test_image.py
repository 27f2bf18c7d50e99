"""Images judged by their header and decoded strictly."""

import io
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from loraloop.ocr.image import UnreadableError, load

GREY = np.linspace(0, 255, 60 * 80).reshape(60, 80).astype(np.uint8)
SUFFIX = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "JPEG2000": ".jp2",
}
EXACT = {"PNG", "TIFF", "BMP", "GIF", "JPEG2000"}
OTHER = "is not a PNG, JPEG, TIFF, WebP, BMP, GIF or JPEG 2000 image"


def packed(format_: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, format_)
    return stream.getvalue()


PACKED = {format_: packed(format_) for format_ in SUFFIX}


def reason(path, max_pixels=10_000_000) -> str:
    with pytest.raises(UnreadableError) as error:
        load(path, max_pixels)
    return str(error.value)


@pytest.mark.parametrize("format_", SUFFIX)
def test_every_format_decodes_to_its_grey_pixels(format_, tmp_path):
    """Every format gives the picture that was saved, whatever the file is called."""
    (tmp_path / "picture").write_bytes(PACKED[format_])
    assert np.abs(load(tmp_path / "picture", 10_000).astype(int) - GREY).max() <= (0 if format_ in EXACT else 12)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SUFFIX)), st.floats(0.0, 1.0, exclude_max=True))
def test_no_truncated_file_is_read(tmp_path_factory, format_, share):
    """A file cut anywhere, its last byte included, is refused with a reason."""
    path = tmp_path_factory.mktemp("cut") / f"cut{SUFFIX[format_]}"
    path.write_bytes(PACKED[format_][: int(share * len(PACKED[format_]))])
    assert reason(path)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "JPEG2000"])
@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_last_byte_is_noticed(format_, missing, tmp_path):
    """Decoders forgive a missing tail; the end mark does not."""
    path = tmp_path / "cut"
    path.write_bytes(PACKED[format_][:-missing])
    assert "truncated" in reason(path)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "group4", "jpeg"])
@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_last_byte_of_a_tiff_is_noticed(compression, missing, tmp_path):
    """Whether pixels or the directory come last, with every usual compression, a shorter TIFF is refused."""
    path = tmp_path / "cut.tif"
    picture = Image.fromarray(GREY).convert("1") if compression == "group4" else Image.fromarray(GREY)
    picture.save(path, compression=compression, software="a name long enough to stand beside the directory")
    whole = path.read_bytes()
    assert load(path, 10_000).shape == GREY.shape
    path.write_bytes(whole[:-missing])
    assert "truncated" in reason(path)


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("thumbnail", [b"", PACKED["JPEG"]])
def test_a_photos_own_end_is_looked_for(missing, thumbnail, tmp_path):
    """A photo without its end mark is refused where the decoder forgives it, also when its thumbnail has one."""
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1200), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", optimize=True, comment=thumbnail)
    cut = stream.getvalue()[:-missing]
    (tmp_path / "photo.jpg").write_bytes(cut)
    assert reason(tmp_path / "photo.jpg", 2_000_000) == "is truncated: a JPEG ends with the marker FFD9"


@pytest.mark.parametrize("compression", [1, 8])
def test_a_tiff_with_its_pixels_last_is_refused_when_they_are_cut(compression, tmp_path):
    """Raw or deflated pixels at the end of a TIFF are all there or it is refused."""
    strip = GREY.tobytes() if compression == 1 else zlib.compress(GREY.tobytes())
    tags = {256: 80, 257: 60, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: 60, 279: len(strip)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    whole = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + strip
    (tmp_path / "whole.tif").write_bytes(whole)
    assert np.array_equal(load(tmp_path / "whole.tif", 10_000), GREY)
    (tmp_path / "cut.tif").write_bytes(whole[:-1])
    assert "truncated" in reason(tmp_path / "cut.tif")


def test_bytes_after_the_end_are_harmless(tmp_path):
    """Cameras and scanners append bytes of their own; the picture before them is whole."""
    for format_, suffix in SUFFIX.items():
        path = tmp_path / f"more{suffix}"
        path.write_bytes(PACKED[format_] + b"\0" * 100_000)
        assert load(path, 10_000).shape == GREY.shape


def test_unusable_files_say_what_they_are(tmp_path):
    """Missing, empty, not an image, a folder and a pipe each have their reason."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "missing.png") == "does not exist"
    assert reason(tmp_path / "empty.png") == "is empty (0 bytes)"
    assert reason(tmp_path / "text.png") == OTHER
    assert reason(tmp_path) == reason(tmp_path / "pipe.png") == "is not a file"


def test_a_huge_image_is_refused_by_its_header(tmp_path):
    """A header that announces too many pixels is enough: this file has no pixel to decode."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 40_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")
    assert reason(tmp_path / "huge.png") == "has 50000 x 40000 = 2000.0 megapixels, more than ocr.max_pixels=10000000"


@pytest.mark.parametrize("format_", ["TIFF", "WEBP", "PNG"])
def test_several_frames_are_not_read_as_one(format_, tmp_path):
    """A multi-page TIFF, an animated WebP or PNG is refused as a whole: all but one of its pages would be lost."""
    other = Image.fromarray(255 - GREY)
    Image.fromarray(GREY).save(tmp_path / "two", format_, save_all=True, append_images=[other])
    assert reason(tmp_path / "two") == "has 2 frames, of which one would be read: save one image per page"


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    """An animated GIF is read by its first picture."""
    Image.fromarray(GREY).save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    assert np.array_equal(load(tmp_path / "a.gif", 10_000), GREY)


def test_each_page_of_a_tiff_is_read(tmp_path):
    """``scan.tif#2`` is the second page; one beyond the last, and one that is too large, are refused."""
    Image.fromarray(GREY).save(tmp_path / "scan.tif", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    assert np.array_equal(load(tmp_path / "scan.tif#1", 10_000), GREY)
    assert np.array_equal(load(tmp_path / "scan.tif#2", 10_000), 255 - GREY)
    assert reason(tmp_path / "scan.tif#3").startswith("is damaged or truncated")
    assert "megapixels" in reason(tmp_path / "scan.tif#2", max_pixels=100)


def test_each_page_of_a_pdf_is_read(tmp_path, monkeypatch):
    """``pages.pdf#2`` is the second page; a damaged PDF, a large page and the missing extra are told."""
    Image.fromarray(GREY).save(
        tmp_path / "pages.pdf", save_all=True, append_images=[Image.new("L", (80, 60), 9)], resolution=300
    )
    assert load(tmp_path / "pages.pdf#2", 10_000).shape == pytest.approx((60, 80), abs=1)
    assert load(tmp_path / "pages.pdf#2", 10_000).max() < 20 < load(tmp_path / "pages.pdf#1", 10_000).max()
    assert "megapixels" in reason(tmp_path / "pages.pdf#2", max_pixels=100)
    (tmp_path / "torn.pdf").write_bytes((tmp_path / "pages.pdf").read_bytes()[:200])
    assert reason(tmp_path / "torn.pdf").startswith("is a PDF that cannot be read")
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    assert reason(tmp_path / "pages.pdf#1") == "is a PDF: pypdfium2 is not installed: pip install 'loraloop[pdf]'"


def test_a_format_that_is_not_read_is_named_so(tmp_path):
    """Any other format is told apart from a damaged file, whatever its name."""
    Image.fromarray(GREY).save(tmp_path / "icon.png", "ICO")
    assert reason(tmp_path / "icon.png") == OTHER


def test_a_small_file_of_many_pixels_is_not_decoded(tmp_path):
    """A decompression bomb, whole and valid, is refused by its header: 100 megapixels in 100 KB."""
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    assert "100.0 megapixels, more than ocr.max_pixels=50000000" in reason(tmp_path / "bomb.png", 50_000_000)


def test_a_tiff_whose_pages_lead_back_to_the_first_ends(tmp_path):
    """A directory that names itself as the next one is no endless file."""
    Image.fromarray(GREY).save(tmp_path / "loop.tif")
    data = bytearray((tmp_path / "loop.tif").read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    end = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, end, first)
    (tmp_path / "loop.tif").write_bytes(data)
    assert load(tmp_path / "loop.tif", 10_000).shape == GREY.shape


@pytest.mark.parametrize("mode", ["CMYK", "CMYK JPEG", "P", "P with alpha", "RGB", "alpha", "16 bit", "turned", "1"])
def test_every_pixel_kind_becomes_the_same_grey(mode, tmp_path):
    """CMYK, palette, colour, transparency, 16 bits and EXIF turns give the same upright grey picture."""
    picture = Image.fromarray(GREY)
    path = tmp_path / {"CMYK": "picture.tif", "CMYK JPEG": "picture.jpg"}.get(mode, "picture.png")
    if mode == "alpha":
        Image.fromarray(np.dstack([np.zeros_like(GREY), 255 - GREY])).save(path)
    elif mode == "P with alpha":
        picture.convert("P").save(path, transparency=255)  # white shows white through
    elif mode == "16 bit":
        Image.fromarray(GREY.astype(np.uint16) * 257).save(path)
    elif mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.rotate(90, expand=True).save(path, exif=exif)
    elif mode == "1":
        picture = picture.point(lambda grey: 255 * (grey > 127))
        picture.convert("1").save(path)
    else:
        kind = mode.split()[0]
        (picture if kind == "P" else picture.convert("RGB")).convert(kind).save(path)
    pixels = load(path, 10_000)
    assert pixels.shape == GREY.shape
    assert np.abs(pixels.astype(int) - np.asarray(picture)).max() <= (12 if path.suffix == ".jpg" else 4)
