"""Masking the passwords of URLs."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from loraloop.core.passwords import MaskedFormatter, MaskedStream, mask, mask_all, without_user


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:secret@host:5000/#/runs", "http://me:***@host:5000/#/runs"),
        ("https://me:se@cr:et@host failed", "https://me:***@host failed"),
        ("https://:secret@host", "https://:***@host"),
        ("postgresql+psycopg://me:se/cret@/db?host=/tmp", "postgresql+psycopg://me:***@/db?host=/tmp"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("uri: 'http://a:secret@b', url: \"http://c:secret@d\"", "uri: 'http://a:***@b', url: \"http://c:***@d\""),
        ("http://me:***@host", "http://me:***@host"),
    ],
)
def test_a_password_is_masked_wherever_it_stands_in_a_text(text, masked):
    """Every URL of a text keeps scheme, user, host and path, and loses its password alone."""
    assert mask(text) == masked
    assert mask(masked) == masked


@pytest.mark.parametrize(
    "text",
    ["models:/loraloop@champion", "http://127.0.0.1:5000/x@champion", "sqlite:////a/b:c@d.db", "file:///a:b@c",
     "me:word@host", "http://host:80/?q=a:b@c", "postgresql://me@host:5432/db"],
)  # fmt: skip
def test_what_is_no_password_stays(text):
    """References, ports, paths and users without a password are left as they are."""
    assert mask(text) == text


def test_a_configuration_is_masked_at_any_depth():
    """Texts in nested mappings and lists are masked; other values stay what they are."""
    url = "http://a:secret@b"
    assert mask_all({"x": [url, 1, None], "y": {"z": url}}) == {"x": [mask(url), 1, None], "y": {"z": mask(url)}}


def test_a_link_has_neither_user_nor_password():
    """A link that a person opens leads to the same page without them."""
    assert without_user("https://me:secret@host:1/#/runs/2") == "https://host:1/#/runs/2"
    assert without_user("http://host/a@b") == "http://host/a@b"


def test_a_logged_traceback_is_masked():
    """Neither the message nor the traceback of a log record shows a password."""
    try:
        raise ValueError("http://a:secret@b")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "at %s", ("http://a:secret@b",), sys.exc_info())
    line = MaskedFormatter("%(message)s").format(record)
    assert "secret" not in line
    assert "at http://a:***@b" in line


def test_a_masked_stream_is_the_stream_but_for_passwords():
    """What is printed into it arrives masked, and everything else that a stream can is the stream's own."""
    stream = io.StringIO()
    masked = MaskedStream(stream)
    print("at", "http://a:secret@b", file=masked, flush=True)
    assert masked.getvalue() == "at http://a:***@b\n"
    assert masked.isatty() is False
