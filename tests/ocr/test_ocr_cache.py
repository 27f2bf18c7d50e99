"""Pages kept on disk."""

import os

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loraloop.core.secrets import find
from loraloop.ocr.cache import Cache
from loraloop.records import Page, Word

words = st.builds(Word, st.text(min_size=1), st.floats(0, 100), st.tuples(*[st.integers(0, 9999)] * 4))
pages = st.builds(
    Page,
    image=st.just("a.png"),
    sha256=st.just("0" * 64),
    width=st.integers(1, 9999),
    height=st.integers(1, 9999),
    text=st.text(),
    confidence=st.floats(0, 100),
    words=st.lists(words, max_size=3).map(tuple),
    engine=st.just("tesseract 5"),
    steps=st.lists(st.text(), max_size=3).map(tuple),
    seconds=st.floats(0, 100),
)


@settings(max_examples=30, deadline=None)
@given(page=pages)
def test_a_page_comes_back_as_it_was(tmp_path_factory, page):
    """A kept page equals the one that was put there, under the name asked for."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    assume(not find(page.text, emails=True))
    cache.put("abc", page)
    assert cache.get("abc", page.image) == page
    assert cache.get("abc", "b.png").image == "b.png"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"words": 1}', b"\xff"])
def test_a_damaged_file_counts_as_absent(tmp_path, content):
    """What cannot be understood is read again instead of raising."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "abc.json").write_bytes(content)
    assert Cache(tmp_path).get("abc", "a.png") is None


def page(text):
    """A page with this text."""
    return Page(
        image="a.png", sha256="0", width=1, height=1, text=text, confidence=90.0, words=(), engine="e", steps=(),
        seconds=0.1,
    )  # fmt: skip


def test_a_page_with_a_secret_is_not_kept(tmp_path):
    """Text with a password or an e-mail address is on disk nowhere; other text is."""
    cache = Cache(tmp_path)
    texts = {"aa1": "Password: hunter2blue", "bb2": "write to ann@example.org", "cc3": "Meeting at noon"}
    for key, text in texts.items():
        cache.put(key, page(text))
    assert [cache.get(key, "a.png") is not None for key in texts] == [False, False, True]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["cc3.json"]


def test_the_oldest_pages_make_room(tmp_path, monkeypatch):
    """Beyond the bounds on number and size, the oldest files go, and the newest stays."""
    cache = Cache(tmp_path)
    for number in range(6):
        cache.put(f"{number}{number}x", page(f"page {number}"))
        os.utime(tmp_path / f"{number}{number}" / f"{number}{number}x.json", (number, number))
    monkeypatch.setattr("loraloop.ocr.cache.MOST", 4)
    cache.prune()
    assert {path.name[0] for path in tmp_path.rglob("*.json")} == set("2345")
    size = max(path.stat().st_size for path in tmp_path.rglob("*.json"))
    monkeypatch.setattr("loraloop.ocr.cache.LARGEST", size)
    cache.prune()
    assert {path.name[0] for path in tmp_path.rglob("*.json")} == {"5"}


def test_the_pages_of_a_text_are_found(tmp_path):
    """A page is found by a text in which its own stands whole, on lines of its own; a part of a line is not it."""
    cache = Cache(tmp_path)
    for key, text in {"aa1": "CODE 7F\nDOOR", "bb2": "7F", "cc3": "DOOR\nCODE 7F", "dd4": ""}.items():
        cache.put(key, page(text))
    found = cache.holding(["which code?\nCODE 7F\nDOOR", "other"])
    assert [file.stem for file in found] == ["aa1"]
    assert cache.holding([]) == Cache(None).holding(["7F"]) == []
