"""The rating page in a real browser."""

from __future__ import annotations

import pytest

from scripts import script
from waiting import until

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\"'>"
RIGHT_TO_LEFT = "שלום \u202eevil\u202c مرحبا"
LONG = "x" * 5000


@pytest.fixture(scope="module")
def pictures():
    """The script that takes the pictures, which serves the same page."""
    with script("rate_pictures") as module:
        yield module


@pytest.fixture(scope="module")
def page(pictures):
    """One browser for the module."""
    with pictures.browser() as opened:
        yield opened


def look(page, width, *, touched):
    """Give the window a size."""
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=touched)


def press(page, place):
    """Click in the middle of a place, as a mouse does: the script's own way asks the page, which runs nothing here."""
    at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)


@pytest.mark.parametrize(("width", "touched"), [(1280, False), (360, True)])
def test_hostile_text_is_text(page, pictures, file, make, width, touched):
    """At desktop and phone width, tags, quotes, writing from right to left and endless words are shown as text."""
    texts = [HOSTILE, RIGHT_TO_LEFT, LONG, "line\n  indented"]
    file.keep(make(prompt=[{"role": "user", "content": text} for text in texts], answer=HOSTILE))
    look(page, width, touched=touched)
    with pictures.site(file) as address:
        page.open(address + file.link("s1"), "document.forms[0]")
        shown = page.js("[...document.querySelectorAll('.text')].map(each => each.textContent)")
        assert shown == [*texts, HOSTILE]
        assert page.js("document.title") == "Rate an answer"
        assert page.js("document.querySelectorAll('script, img').length") == 0
        assert page.js("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        assert page.js("getComputedStyle(document.querySelectorAll('.text')[1]).direction") == "rtl"
        sizes = page.js("[...document.querySelectorAll('label')].map(each => each.getBoundingClientRect().height)")
        assert min(sizes[:10]) >= 44, "stars and boxes are large enough for a finger"


def test_the_form_works_without_javascript(page, pictures, file, make):
    """With JavaScript turned off a person chooses what is rated, stars and boxes, writes, and sends; it is kept."""
    file.keep(make(prompt=pictures.CONVERSATION))
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=2400, deviceScaleFactor=1, mobile=False)
    with pictures.site(file) as address:
        page.open(address + file.link("s1"), "document.forms[0]")
        assert page.js("document.querySelector('.call').textContent") == 'calls read {"region": "upper"}'
        assert page.js("[...document.querySelectorAll('.answer')].map(each => each.textContent)") == [make().answer]
        chosen = (
            "[value=conversation]",
            "label:has([name=rating][value='2'])",
            "[value=wrong_action_selected]",
            "#comment",
            "button",
        )
        places = [page.js(f'document.querySelector("{each}").getBoundingClientRect().toJSON()') for each in chosen]
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        for each, place in zip(chosen, places, strict=True):
            press(page, place)
            if each == "#comment":
                page.call("Input.insertText", text="it pressed Escape\nתודה")
        until(lambda: file.rated(file.session("s1"), "conversation") is not None, "the rating is kept")
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    rating = file.rated(file.session("s1"), "conversation")
    assert (rating.stars, rating.issues) == (2, ("wrong_action_selected",))
    assert file.session("s1").rating is None
    assert rating.comment == "it pressed Escape\nתודה"


def test_stars_by_keyboard(page, pictures, file, make):
    """The stars are one group for the keyboard: arrow keys move along them."""
    file.keep(make())
    look(page, 1280, touched=False)
    with pictures.site(file) as address:
        page.open(address + file.link("s1"), "document.forms[0]")
        page.js("document.querySelector('[name=rating][value=\"1\"]').focus()")
        page.press("ArrowRight", 39)
        page.press("ArrowRight", 39)
        assert page.js("document.querySelector('[name=rating]:checked').value") == "3"
