"""The pictures that OCR is examined on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.source.vault import benchmark_data, degrade, drawing, fonts, safe, screen
from loraloop.source.vault.documents import compose
from loraloop.source.vault.pairing import flips_of
from loraloop.source.vault.prose import FIRST, SECOND, Prose

NEW = ("jpeg", "perspective", "screenshot", "keypad")


def test_the_halves_share_nothing_that_was_tuned():
    """No face, size, noise, angle, quality, resolution, grey, share, seed or noun is in both halves."""
    tune, held = benchmark_data.TUNE, benchmark_data.HELD_OUT
    for name in ("noise", "degrees", "qualities", "resolutions", "greys", "shares"):
        assert not set(getattr(tune, name)) & set(getattr(held, name)), name
    for name in ("faces", "sizes", "small"):
        assert not set(getattr(tune.style, name)) & set(getattr(held.style, name)), name
    assert not set(tune.vocabulary.nouns + tune.vocabulary.verbs) & set(held.vocabulary.nouns + held.vocabulary.verbs)
    assert tune.seed != held.seed


def test_the_halves_say_different_things():
    """The same number is another text in each half, for lines, vaults and documents."""
    for make, index in ((benchmark_data.case, 0), (benchmark_data.case, 10), (benchmark_data.document, 5)):
        other = replace(benchmark_data.TUNE, seed=benchmark_data.HELD_OUT.seed)
        assert len({make(half, index).text for half in (benchmark_data.TUNE, other, benchmark_data.HELD_OUT)}) == 3 - (
            index == 10
        )


@pytest.mark.parametrize("half", [benchmark_data.TUNE, benchmark_data.HELD_OUT], ids=lambda half: half.name)
def test_pictures_are_the_same_every_time(half):
    """A number stands for one picture and one text; kinds come in turn, plain lines and vaults by rounds."""
    for index in (3, 13):
        one, two = benchmark_data.case(half, index), benchmark_data.case(half, index)
        assert (one.kind, one.text) == (two.kind, two.text) == ("noisy", one.text)
        assert np.array_equal(one.pixels, two.pixels)
        assert bool(flips_of(one.text)) == (index == 13)
    assert [benchmark_data.case(half, index).kind for index in range(10)] == list(benchmark_data.KINDS)


@pytest.mark.parametrize("index", range(10))
def test_documents_have_the_size_of_scans(index):
    """Every layout is 0.4 to 4 megapixels, grey, the same every time, and says more than twenty words."""
    made = benchmark_data.document(benchmark_data.TUNE, index)
    again = benchmark_data.document(benchmark_data.TUNE, index)
    assert made.kind == benchmark_data.LAYOUTS[index]
    assert 0.4e6 <= made.pixels.size <= 4e6
    assert np.array_equal(made.pixels, again.pixels)
    assert len(made.text.split()) > 20


@pytest.mark.parametrize("layout", benchmark_data.LAYOUTS)
def test_nothing_is_printed_off_the_page(layout):
    """The margins of every layout are white: no line runs into the edge."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        pixels = compose(layout, Prose(FIRST, rng), fonts.PLAIN, 100, rng).pixels
        edges = [pixels[:, :8], pixels[:, -8:], pixels[-8:]]
        assert min(edge.min() for edge in edges) > 200


@pytest.mark.parametrize("look", NEW)
def test_new_looks_carry_the_plate_and_are_seeded(look):
    """A new look shows the same plate as any other, is the same for the same seed and differs for another."""
    one = drawing.draw(4, 1, look)
    assert drawing.plate(flips_of(one.text)) in one.text
    assert np.array_equal(one.pixels, drawing.draw(4, 1, look).pixels)
    assert not np.array_equal(one.pixels, drawing.draw(5, 1, look).pixels)


def test_what_else_is_on_the_picture_is_in_its_text():
    """The window's title and buttons, and the keypad's keys, are part of what is to be read."""
    assert drawing.draw(0, 0, "screenshot").text.split("\n")[0] == screen.TITLE
    assert drawing.draw(0, 0, "screenshot").text.endswith(" ".join(screen.BUTTONS))
    assert drawing.draw(0, 0, "keypad").text.endswith(safe.KEYS)


def test_a_fax_has_black_dots_alone_before_it_is_scaled():
    """Printed in dots, grey ink becomes black and white of about the same brightness; scaling smooths it."""
    page = np.full((120, 120), 255, np.uint8)
    page[40:80, 40:80] = 24
    dots = degrade.dither(page, 90, 1.0)
    assert set(np.unique(dots)) == {0, 255}
    assert dots[45:75, 45:75].mean() == pytest.approx(90 + 24 * 165 / 255, abs=12)
    assert len(np.unique(degrade.dither(page, 90, 1.3))) > 2


def test_perspective_keeps_the_middle_and_moves_the_corners():
    """Seen from aslant by up to 4%, a grid keeps its size and its middle, and no corner stays where it was."""
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[4:-4, 4:-4] = 255
    seen = degrade.perspective(picture, 0.04, np.random.default_rng(0))
    assert seen.shape == picture.shape
    assert seen[100, 150].min() == 255
    assert not np.array_equal(seen, picture)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([FIRST, SECOND]))
def test_sentences_are_sentences(seed, vocabulary):
    """A sentence begins with a capital, ends with a mark and has 6 to 24 words."""
    text = Prose(vocabulary, np.random.default_rng(seed)).sentence()
    assert text[0].isupper()
    assert text[-1] in ".?"
    assert 6 <= len(text.split()) <= 24


def test_fonts_that_are_missing_fall_back():
    """Unknown faces are passed over, and where none is found Pillow's own face draws."""
    assert fonts.found(("NoSuchFace",)) == ()
    assert fonts.font(("NoSuchFace",), 3, 20).getlength("abc") > 10
