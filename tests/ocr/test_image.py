"""Images judged by their header and decoded strictly."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from loraloop.ocr.image import UnreadableError, load

GREY = np.linspace(0, 255, 60 * 80).reshape(60, 80).astype(np.uint8)
SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WEBP": ".webp"}


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
    """PNG, JPEG, TIFF and WebP give the picture that was saved, whatever the file is called."""
    (tmp_path / "picture").write_bytes(PACKED[format_])
    assert np.abs(load(tmp_path / "picture", 10_000).astype(int) - GREY).max() <= (
        0 if format_ in {"PNG", "TIFF"} else 12
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SUFFIX)), st.floats(0.0, 1.0, exclude_max=True))
def test_no_truncated_file_is_read(tmp_path_factory, format_, share):
    """A file cut anywhere, its last byte included, is refused with a reason."""
    path = tmp_path_factory.mktemp("cut") / f"cut{SUFFIX[format_]}"
    path.write_bytes(PACKED[format_][: int(share * len(PACKED[format_]))])
    assert reason(path)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_a_missing_last_byte_is_noticed(format_, tmp_path):
    """Decoders forgive a missing tail; the end mark does not."""
    path = tmp_path / "cut"
    path.write_bytes(PACKED[format_][:-1])
    assert "truncated" in reason(path)


def test_unusable_files_say_what_they_are(tmp_path):
    """Missing, empty, not an image, a folder and a pipe each have their reason."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "missing.png") == "does not exist"
    assert reason(tmp_path / "empty.png") == "is empty (0 bytes)"
    assert reason(tmp_path / "text.png") == "is not a PNG, JPEG, TIFF or WebP image"
    assert reason(tmp_path) == reason(tmp_path / "pipe.png") == "is not a file"


def test_a_huge_image_is_refused_by_its_header(tmp_path):
    """A header that announces too many pixels is enough: this file has no pixel to decode."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 40_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")
    assert reason(tmp_path / "huge.png") == "has 50000 x 40000 = 2000.0 megapixels, more than ocr.max_pixels=10000000"


@pytest.mark.parametrize("format_", ["TIFF", "WEBP", "PNG"])
def test_several_frames_are_not_read_as_one(format_, tmp_path):
    """A multi-page TIFF or an animation is refused, because all but one of its pages would be lost."""
    other = Image.fromarray(255 - GREY)
    Image.fromarray(GREY).save(tmp_path / "two", format_, save_all=True, append_images=[other])
    assert "has 2 frames" in reason(tmp_path / "two")


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGB", "alpha", "16 bit", "turned"])
def test_every_pixel_kind_becomes_the_same_grey(mode, tmp_path):
    """CMYK, palette, colour, transparency, 16 bits and EXIF turns give the same upright grey picture."""
    picture = Image.fromarray(GREY)
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    if mode == "alpha":
        Image.fromarray(np.dstack([np.zeros_like(GREY), 255 - GREY])).save(path)
    elif mode == "16 bit":
        Image.fromarray(GREY.astype(np.uint16) * 257).save(path)
    elif mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.rotate(90, expand=True).save(path, exif=exif)
    else:
        (picture if mode == "P" else picture.convert("RGB")).convert(mode).save(path)
    pixels = load(path, 10_000)
    assert pixels.shape == GREY.shape
    assert np.abs(pixels.astype(int) - GREY).max() <= 4
