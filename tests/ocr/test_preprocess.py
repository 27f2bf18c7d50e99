"""The preprocessing steps and the measurements that gate them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from loraloop.ocr.preprocess import SKEW_SIDE, Steps, noise, prepare, skew

NONE = Steps(invert=False, denoise=False, normalize=False, deskew=False, upscale=False, unrule=False)

NONE_BUT_INVERT = replace(NONE, invert=True)


def page(letter: float = 1.0, ink: int = 20, ground: int = 240) -> np.ndarray:
    """Eight lines of text; at ``letter`` 1 its small letters are about 22 pixels high."""
    pixels = np.full((560, 860), ground, np.uint8)
    for line in range(8):
        cv2.putText(pixels, "Level lines of text", (30, 70 + 60 * line), cv2.FONT_HERSHEY_SIMPLEX, 1.6 * letter, ink, 2)
    return pixels


def turned(pixels: np.ndarray, degrees: float) -> np.ndarray:
    height, width = pixels.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(pixels, matrix, (width, height), borderValue=240)


def grainy(pixels: np.ndarray, deviation: float) -> np.ndarray:
    grain = np.random.default_rng(0).normal(0, deviation, pixels.shape)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def applied(pixels: np.ndarray, steps: Steps | None = None) -> set[str]:
    return {step.split()[0] for step in prepare(pixels, steps or Steps()).steps}


def test_a_page_gets_only_the_steps_that_it_needs():
    """A clean, level, large page is only normalised; each fault adds the step that mends it."""
    assert applied(page()) == {"gray", "normalize"}
    assert applied(255 - page()) == {"gray", "normalize", "invert"}
    assert applied(turned(page(), 3)) == {"gray", "normalize", "deskew"}
    assert applied(page(0.4)) == {"gray", "normalize", "upscale"}
    assert "denoise" in applied(grainy(page(ink=60, ground=180), 15))


def test_every_step_can_be_switched_off():
    """With all steps off a page that needs each of them passes through in grey alone."""
    assert applied(grainy(turned(255 - page(0.5), 3), 15), NONE) == {"gray"}


@pytest.mark.parametrize("deviation", [0, 6, 12, 24])
def test_noise_is_measured_in_grey_levels(deviation):
    """The estimate is 0 for a clean page and near the true deviation for a noisy one, letters notwithstanding."""
    assert noise(grainy(page(ink=80, ground=160), deviation)) == pytest.approx(deviation, rel=0.2, abs=0.1)


@pytest.mark.parametrize("degrees", [-6.0, -2.5, 0.0, 1.5, 5.0])
def test_skew_is_found(degrees):
    """Lines that fall by up to six degrees are measured to a fifth of a degree."""
    ink = (turned(page(), degrees) < 128).astype(np.uint8)
    assert skew(ink) == pytest.approx(degrees, abs=0.2)


@pytest.mark.parametrize("degrees", [-3.0, 0.0, 0.7])
def test_skew_is_found_on_a_large_page_of_columns(degrees):
    """Three columns of many short lines, far larger than the search works on, give their own angle and no other."""
    whole = np.tile(page(0.5, ground=255)[:, :480], (5, 3))
    ink = (turned(whole, degrees) < 128).astype(np.uint8) * 255
    assert max(ink.shape) > 2 * SKEW_SIDE
    assert skew(ink) == pytest.approx(degrees, abs=0.2)


def test_light_letters_on_a_dark_box_are_inverted_there_alone():
    """A dark button with white letters becomes light with dark letters; the letters around it stay dark on light."""
    pixels = page()
    pixels[480:550, 500:840] = 60
    cv2.putText(pixels, "Open", (560, 530), cv2.FONT_HERSHEY_SIMPLEX, 1.6, 255, 3)
    prepared = prepare(pixels, NONE_BUT_INVERT)
    box = prepared.pixels[480 + 20 : 550, 500 + 20 : 840]
    assert "invert boxes" in prepared.steps
    assert np.median(box) > 180
    assert box.min() < 40
    assert np.median(prepared.pixels) > 200


def test_a_large_bold_letter_is_not_a_box():
    """Letters four times as high as the others, however bold, are left dark."""
    pixels = page(0.6)
    cv2.putText(pixels, "BOX", (30, 540), cv2.FONT_HERSHEY_SIMPLEX, 2.4, 20, 10)
    assert applied(pixels) <= {"gray", "normalize", "upscale"}


def test_frames_and_shadows_wider_than_letters_are_ground():
    """A grey frame as wide as a letter is high vanishes, and the letters in it stay black."""
    pixels = cv2.copyMakeBorder(page(0.5)[:, :480], *[80] * 4, cv2.BORDER_CONSTANT, value=240)
    cv2.rectangle(pixels, (40, 40), (600, 680), 130, 20)
    prepared = prepare(pixels, Steps(deskew=False, upscale=False)).pixels[12:-12, 12:-12]
    assert np.median(prepared[100:600, 36:44]) > 200
    assert prepared[120:500, 90:500].min() < 40


def test_ruled_lines_are_erased_and_letters_kept():
    """The grid of a table becomes ground, and no letter loses its ink, not even one that touches a line."""
    plain, ruled = page(), page()
    for row in range(90, 560, 120):
        cv2.line(ruled, (10, row), (850, row), 20, 2)
    cv2.line(ruled, (14, 90), (14, 450), 20, 2)
    prepared = prepare(ruled, Steps(deskew=False))
    assert "unrule" in prepared.steps
    without = prepare(plain, Steps(deskew=False)).pixels
    assert np.median(prepared.pixels[102, 30:800]) > 240
    assert np.count_nonzero(prepared.pixels < 128) == pytest.approx(np.count_nonzero(without < 128), rel=0.03)


def test_thin_dark_stretches_beside_the_solid_part_of_a_dark_bar_are_no_lines():
    """Around the last letters on a bar, next to its solid part, the dark ground is kept: it gives the letters shape."""
    pixels = page()
    pixels[490:] = 0
    cv2.putText(pixels, "Light letters in a bar", (30, 545), cv2.FONT_HERSHEY_SIMPLEX, 1.6, 255, 2)
    alone = Steps(invert=False, denoise=False, normalize=False, deskew=False, upscale=False)
    with_lines, without = (prepare(pixels, replace(alone, unrule=unrule)).pixels for unrule in (False, True))
    assert np.array_equal(with_lines[:, 480:], without[:, 480:])


def test_the_matrix_leads_from_the_original_to_the_prepared_page():
    """A mark lands where the matrix says, through turning, scaling and the border."""
    pixels = turned(page(0.5), 4)
    prepared = prepare(pixels, Steps())
    row, column = np.argwhere(pixels < 60)[500]
    x, y = prepared.matrix @ [column, row, 1.0]
    assert prepared.pixels[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4].min() < 100


def test_uneven_light_becomes_an_even_ground():
    """After normalisation the ground is white in the lit and in the dark corner, and the letters are black."""
    light = np.linspace(0.3, 1.0, 860)[None, :]
    prepared = prepare((page() * light).astype(np.uint8), Steps()).pixels
    assert np.percentile(prepared[:, :60], 50) > 240
    assert np.percentile(prepared[:, -60:], 50) > 240
    assert prepared.min() < 20


@pytest.mark.parametrize("threshold", ["otsu", "adaptive"])
def test_a_threshold_leaves_black_and_white(threshold):
    """A thresholded page has two grey levels; without one it keeps its greys."""
    assert set(np.unique(prepare(page(), Steps(threshold=threshold)).pixels)) == {0, 255}
    assert len(np.unique(prepare(page(), Steps()).pixels)) > 2


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40), elements=st.integers(0, 255)))
def test_any_pixels_can_be_prepared(pixels):
    """No picture, however small or odd, makes a step fail."""
    assert prepare(pixels, Steps()).pixels.dtype == np.uint8
