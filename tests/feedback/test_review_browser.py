"""The page ``/review`` in a real browser."""

from __future__ import annotations

import pytest

from loraloop.records import Rating
from loraloop.serve.keys import Keys
from scripts import script
from waiting import until

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\"'>" + "x" * 3000
THERE = "document.querySelector('#difference')"


@pytest.fixture(scope="module")
def pictures():
    """The script that takes the pictures, which serves the same page."""
    with script("review_pictures") as module:
        yield module


@pytest.fixture(scope="module")
def page(pictures):
    """One browser for the module."""
    with pictures.browser() as opened:
        yield opened


@pytest.fixture
def address(page, pictures, file, tmp_path):
    """The page on a phone of 360 pixels, with two proposals; the key is given."""
    pictures.example(file)
    keys = Keys(tmp_path / "keys.json")
    with pictures.site(file, keys) as address:
        pictures.look(page, 360, touched=True)
        pictures.enter(page, address, keys.add("ann", ["review"]))
        yield address


def middle(page, selector):
    """Where an element is, by DevTools alone: the page's script is off. ``None`` where it is not there yet."""
    try:
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        found = page.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        page.call("DOM.scrollIntoViewIfNeeded", nodeId=found)
        quad = page.call("DOM.getContentQuads", nodeId=found)["quads"][0]
    except (RuntimeError, IndexError):  # another page takes its place
        return None
    return {"x": sum(quad[::2]) / 4, "y": sum(quad[1::2]) / 4}


def touch(page, selector):
    """Wait for an element and touch its middle."""
    places = []
    until(lambda: places.append(middle(page, selector)) or places[-1], f"{selector} is there")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **places[-1])


def test_it_fits_a_phone(page, address):
    """Nothing is wider than 360 pixels, and what is pressed is large enough for a finger."""
    page.open(f"{address}/review/1", THERE)
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    sizes = page.js("[...document.querySelectorAll('.decide button')].map(each => each.getBoundingClientRect().height)")
    assert min(size for size in sizes if size) >= 44


def test_it_works_without_javascript(page, address, file):
    """With JavaScript off a person opens the list, a proposal and its edit, writes and saves, and accepts the next."""
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.call("Page.navigate", url=f"{address}/review")
        touch(page, "a[href='/review/1']")
        touch(page, "summary")
        touch(page, "#text")
        page.call("Input.insertText", text=" Yes")
        touch(page, "[value=edit]")
        until(lambda: file.session("panel").correction is not None, "the edit is kept")
        touch(page, "form[action='/review/2'] [value=accept]")
        until(lambda: file.session("call").correction is not None, "the next is accepted")
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert file.session("panel").correction == "The code is 7F-2A-91. Yes"


def test_keys_decide_and_writing_does_not(page, address, file):
    """``e`` opens the edit, letters that are written there are text, and ``a`` accepts; back says what was decided."""
    page.open(f"{address}/review/2", THERE)
    page.press("e", 69)
    page.wait("document.querySelector('details').open && document.activeElement.id == 'text'")
    page.press("a", 65)
    assert len(file.proposals()) == 2
    page.open(f"{address}/review/1", THERE)
    page.press("a", 65)
    page.wait("document.title == 'Review 1 of 1'")
    assert file.session("panel").correction == "The code is 7F-2A-91."
    page.js("history.back()")
    page.wait("document.title == 'Decided already'")


def test_hostile_text_does_nothing_and_fits(page, address, file, make):
    """Tags are shown as text, endless words break, what changed is marked by more than colour, and dark is dark."""
    file.keep(make("s9", prompt=[{"role": "user", "content": HOSTILE}], answer=HOSTILE))
    file.rate("s9", Rating(stars=1, comment=HOSTILE, correction=f"right {HOSTILE}"))
    page.open(f"{address}/review/3", THERE)
    assert page.js("document.title") == "Review 2 of 3"
    assert page.js("document.querySelectorAll('img').length") == 0
    assert page.js("document.querySelector('dl').textContent").count("onerror") == 1
    assert page.js("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert "underline" in page.js("getComputedStyle(document.querySelector('#difference ins')).textDecoration")
    assert page.js("getComputedStyle(document.querySelector('#difference ins'), '::before').content") == '"+"'
    colour = "getComputedStyle(document.body).color"
    light = page.js(colour)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.js(colour) != light
