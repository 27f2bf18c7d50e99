"""Pages kept on disk."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    cache.put("abc", page)
    assert cache.get("abc", page.image) == page
    assert cache.get("abc", "b.png").image == "b.png"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"words": 1}', b"\xff"])
def test_a_damaged_file_counts_as_absent(tmp_path, content):
    """What cannot be understood is read again instead of raising."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "abc.json").write_bytes(content)
    assert Cache(tmp_path).get("abc", "a.png") is None
