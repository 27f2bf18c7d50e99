"""Text files: UTF-8, or an error that names what else it looks like and how to convert it."""

from __future__ import annotations

import codecs
from pathlib import Path

from loraloop.errors import DataError


def text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        DataError: It is not UTF-8.
    """
    require(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {not_utf8(error.start)}") from error


def require(path: Path) -> None:
    """Refuse a file whose beginning shows another encoding.

    Raises:
        DataError: It begins as UTF-16 or UTF-32 do.
    """
    with path.open("rb") as stream:
        head = stream.read(64)
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        found = "UTF-32"
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head.count(0) * 4 > len(head):
        found = "UTF-16"
    else:
        return
    raise DataError(f"{path} is {found}, not UTF-8: save it as UTF-8, or convert it: {convert(found)}")


def not_utf8(byte: int) -> str:
    """The reason why a text cannot be read, and the way out.

    Args:
        byte: Place of the first byte that is not UTF-8, from 0.
    """
    return f"not UTF-8 (byte {byte}), perhaps Latin-1: save the file as UTF-8, or convert it: {convert('LATIN1')}"


def convert(encoding: str) -> str:
    """The command that converts a file to UTF-8."""
    return f"iconv -f {encoding} -t UTF-8 OLD > NEW"
