"""Passwords of URLs, which are masked wherever a URL is printed, logged or kept."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from loraloop.core.signals import reader_gone

MASKED = "***"

# A password ends with the last @ before the path; SQLAlchemy also takes a database's that holds a slash.
_WEB = re.compile(r"(\bhttps?://[^\s:/?#@'\"]*):[^\s/?#'\"]+@")
_OTHER = re.compile(r"(\b(?!https?:)[a-z][a-z0-9+.-]*://[^\s:/?#@'\"]*):(?:[^\s/'\"]+|[^\s@'\"]+)@")
_OPTION = re.compile(r"([?&](?:\w*password|passwd|pwd|\w*token|api_?key)=)[^&\s'\"]+", re.IGNORECASE)


def mask(text: str) -> str:
    """``text`` with ``***`` for the password of each URL in it."""
    if "://" not in text:
        return text
    for pattern in (_WEB, _OTHER):
        text = pattern.sub(rf"\1:{MASKED}@", text)
    return _OPTION.sub(rf"\1{MASKED}", text)


def mask_all(value: Any) -> Any:
    """A value of a configuration with every text in it masked."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: mask_all(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [mask_all(each) for each in value]
    return value


def without_user(url: str) -> str:
    """A URL without user and password, for a link that a person opens."""
    return re.sub(r"^(https?://)[^/?#]*@", r"\1", url)


class MaskedStream:
    """A text stream that masks what is written to it, and drops it when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text with its passwords masked; the number of its characters."""
        try:
            self._stream.write(mask(text))
        except BrokenPipeError:
            reader_gone(self._stream)
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            reader_gone(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mask_output() -> None:
    """Mask what this process prints from now on, whoever prints it: loraloop, Hydra, a library or a traceback."""
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), MaskedStream):
            setattr(sys, name, MaskedStream(stream))


class MaskedFormatter(logging.Formatter):
    """Formats a message, with its traceback if it has one, and masks what is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines of a record."""
        return mask(super().format(record))
