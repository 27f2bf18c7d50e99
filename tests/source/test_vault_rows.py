"""Rows that ``stage=read`` wrote, as input of the vault source."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.errors import ConfigError
from loraloop.records import Page, Word
from loraloop.source.vault import Vault, rows

words = st.builds(Word, st.text(min_size=1), st.floats(0, 100), st.tuples(*[st.integers(0, 9999)] * 4))
pages = st.builds(
    Page,
    image=st.just("scans/a.png"),
    sha256=st.just("0" * 64),
    width=st.integers(0, 9999),
    height=st.integers(0, 9999),
    text=st.text(),
    confidence=st.floats(0, 100),
    words=st.lists(words, max_size=3).map(tuple),
    engine=st.just("tesseract 5"),
    steps=st.lists(st.text(), max_size=3).map(tuple),
    seconds=st.floats(0, 100),
    status=st.sampled_from(["ok", "quarantined"]),
    reason=st.text(),
)


def page(name: str, **changes) -> dict:
    made = Page(
        image=f"scans/{name}.png",
        sha256=name * 64,
        width=4,
        height=3,
        text=f"text {name}",
        confidence=90.0,
        words=(),
        engine="test 1",
        steps=("gray",),
        seconds=0.1,
    )
    return made.to_row() | changes


@settings(max_examples=40, deadline=None)
@given(page=pages)
def test_a_page_survives_its_row(tmp_path_factory, page):
    """A page written as a row and read again is the same page, words and boxes included."""
    file = tmp_path_factory.mktemp("rows") / "pages.jsonl"
    file.write_text(json.dumps(page.to_row()) + "\n", "utf-8")
    [(picture, again)], aside = rows.read(file, 7)
    assert again == page
    assert (str(picture.path), picture.index, picture.truth, aside) == ("scans/a.png", 7, None, [])


def test_a_bad_row_is_set_aside_and_the_others_are_used(tmp_path):
    """Lines that are no JSON or no page are listed with their reason; a quarantined page keeps its own."""
    good, torn = page("a"), page("b", status="quarantined", reason="is empty (0 bytes)", text="")
    lines = [good, "{", page("c", words=[{"text": "x"}]), page("d", confidence="high"), torn, page("e")]
    file = tmp_path / "pages.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    found = Vault(path=str(file), synthetic=0).collect(None)
    assert [one.output for one in found.examples] == ["text a", "text e"]
    reasons = {item.item: item.reason for item in found.quarantined}
    assert reasons.keys() == {f"{file}:2", "scans/c.png", "scans/d.png", "scans/b.png"}
    assert reasons["scans/b.png"] == "is empty (0 bytes)"
    assert reasons["scans/c.png"].startswith("no page: words.0.confidence")
    assert reasons["scans/d.png"].startswith("no page: confidence: ")


def test_the_true_text_beside_the_image_is_used(tmp_path, monkeypatch):
    """NAME.txt beside the image that a row names is its truth, as if the image were read now."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.txt").write_text("The true text")
    (tmp_path / "pages.jsonl").write_text(json.dumps(page("a")) + "\n")
    found = Vault(path="pages.jsonl", synthetic=0).collect(None)
    assert [(one.task, one.output) for one in found.examples] == [
        ("vault_denoise", "The true text"),
        ("vault_flips", "The true text"),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no such file"),
        ("", "is empty"),
        ("[1]\n", "not an object of named values"),
        ('{"a": 1}\n', "image: field required"),
    ],
)
def test_a_file_of_other_rows_is_refused_before_any_work(tmp_path, content, told):
    """A missing or empty file, or one of another shape, is refused with the command that writes a right one."""
    file = tmp_path / "pages.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=rf"source.path={file}.*({told})"):
        Vault(path=str(file), synthetic=0).check()


def test_copies_need_images():
    """Damaged copies cannot be made of rows: asking for both is refused."""
    with pytest.raises(ValidationError, match=r"augment.copies needs images, and path=pages.jsonl holds rows"):
        Vault(path="pages.jsonl", synthetic=0, augment={"copies": 1})
