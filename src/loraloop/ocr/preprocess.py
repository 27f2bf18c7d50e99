"""What makes a page easy for Tesseract: dark letters on an even light ground, level, and tall enough.

Tesseract's recogniser is an LSTM over grey pixels; thresholding takes information from it, so it is an option and not
a step. Every step but the last is gated by a measurement of the page, because each of them harms pages that do not
need it: an ungated blur ruins thin letters, and scaling up a noisy page makes letters of the noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from loraloop.ocr.image import Pixels

Box = tuple[int, int, int, int]
Threshold = Literal["none", "otsu", "adaptive"]

DARK = 110  # median grey below which a page is light on dark
NOISY = 4.0  # estimated noise, in grey levels, above which denoising helps more than it harms
FAINT_RULE = 200  # grey level below which a line's pixels are ink
FAINT = 0.12  # share of the page's contrast below which a mark counts as ground
LEVEL_DEGREES = 0.25  # smaller angles are left alone
MAX_SKEW_DEGREES = 8.0
SKEW_SIDE = 1000  # pixels of a larger page's longer side while its angle is sought
LETTER_HEIGHT = 24  # pixels of a median letter that the recogniser likes
SMALL_LETTER = 12  # letters below this are scaled up to LETTER_HEIGHT
MAX_SCALE = 4.0
GROUND = 25  # pixels of the window that letters are first told from ground in
BORDER = 12  # pixels of ground around the page: letters that touch the edge are lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Which preprocessing steps are allowed; each still looks whether the page needs it."""

    invert: bool = True
    denoise: bool = True
    normalize: bool = True
    deskew: bool = True
    upscale: bool = True
    unrule: bool = True
    threshold: Threshold = "none"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A page ready for the engine.

    Attributes:
        pixels: Grey image, dark letters on light ground.
        steps: Names of the steps that were applied.
        matrix: 2x3 affine map from the original's pixel coordinates to those of ``pixels``.
        letter: Median height of the original's letters in pixels; 0.0 for hardly any.
        ink: Not zero where the original has ink, ruled lines included.
    """

    pixels: Pixels
    steps: tuple[str, ...]
    matrix: NDArray[np.float64]
    letter: float
    ink: Pixels

    def original(self, boxes: Iterable[Box]) -> NDArray[np.int64]:
        """Left, top, right and bottom, on the original, of the upright boxes around boxes on ``pixels``."""
        sides = np.array(list(boxes), np.float64).reshape(-1, 4)
        near, far = sides[:, :2], sides[:, :2] + sides[:, 2:]
        across, down = np.stack([far[:, 0], near[:, 1]], axis=1), np.stack([near[:, 0], far[:, 1]], axis=1)
        corners = np.stack([near, far, across, down])
        points = (corners - self.matrix[:, 2]) @ np.linalg.inv(self.matrix[:, :2]).T
        bounds = self.ink.shape[::-1]
        low = np.clip(np.floor(points.min(axis=0)), 0, bounds)
        high = np.clip(np.ceil(points.max(axis=0)), 0, bounds)
        return np.hstack([low, high]).astype(np.int64)

    def placed(self, boxes: NDArray[np.int64]) -> list[Box]:
        """The inverse of :meth:`original`: upright boxes on ``pixels`` around boxes on the original."""
        corners = np.stack([boxes[:, [x, y]] for x in (0, 2) for y in (1, 3)]) if len(boxes) else np.zeros((4, 0, 2))
        points = corners @ self.matrix[:, :2].T + self.matrix[:, 2]
        low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
        return [(int(x), int(y), int(w), int(h)) for (x, y), (w, h) in zip(low, high - low, strict=True)]


def prepare(page: Pixels, steps: Steps) -> Prepared:
    """Apply the allowed steps that the page needs."""
    done = ["gray"]
    if steps.invert and np.median(page) < DARK:
        page = 255 - page
        done.append("invert")
    if steps.denoise and (sigma := noise(page)) > NOISY:
        page = _denoise(page, sigma)
        done.append("denoise")
    page, ink, letter = _evened(page, steps, done)
    angle = skew(ink) if steps.deskew else 0.0
    scale = min(LETTER_HEIGHT / letter, MAX_SCALE) if steps.upscale and 0 < letter < SMALL_LETTER else 1.0
    done += [f"deskew {angle:.1f}"] if angle else []
    done += [f"upscale {scale:.1f}"] if scale != 1.0 else []
    page, matrix = _warp(page, angle, scale)
    if steps.unrule and letter and _unrule(page, letter * scale):
        done.append("unrule")
    if steps.threshold != "none":
        page = _threshold(page, steps.threshold)
        done.append(steps.threshold)
    return Prepared(page, tuple(done), matrix, letter, ink)


def _evened(page: Pixels, steps: Steps, done: list[str]) -> tuple[Pixels, Pixels, float]:
    """The page on even ground, its ink, and the height of its letters.

    The ground is judged twice: what counts as letter and what as ground is known once the letters are measured.
    """
    even = _normalize(page, GROUND) if steps.normalize else page
    ink = _ink(even)
    letter, boxes = _letters(ink)
    if steps.invert and boxes:
        page = _inverted(page, ink, boxes)
        done.append("invert boxes")
    if steps.normalize:
        even = _normalize(page, round(letter) or GROUND)
        done.append("normalize")
    ink = _ink(even if steps.normalize else page)
    return (even if steps.normalize else page), ink, _letters(ink)[0]


def noise(page: Pixels) -> float:
    """Standard deviation of the noise in grey levels, 0.0 for a clean page: the median distance to the local median.

    Medians ignore letters, which cover less than half of a page; the mask of Immerkaer (CVIU 64:2, 1996) sees little
    of the coarse noise that JPEG leaves.
    """
    import cv2

    return 1.4826 * float(np.median(cv2.absdiff(page, cv2.medianBlur(page, 5))))


def skew(ink: Pixels) -> float:
    """Angle in degrees, counter-clockwise, by which the lines of text fall: the one with the sharpest row profile.

    0.0 when the page is level within :data:`LEVEL_DEGREES` or no angle is clearly better than none.
    """
    import cv2

    shrink = max(1.0, max(ink.shape) / SKEW_SIDE)
    small = cv2.resize(ink, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(small)
    if len(rows) < 50:
        return 0.0
    weights = small[rows, columns].astype(np.float64)

    def sharpness(degrees: float) -> float:
        turned = rows + columns * np.tan(np.radians(degrees))
        profile = np.bincount((turned - turned.min()).astype(np.int64), weights)
        return float(np.sum(np.diff(profile) ** 2))

    best = max(np.arange(-MAX_SKEW_DEGREES, MAX_SKEW_DEGREES + 0.25, 0.5), key=sharpness)
    best = max(np.arange(best - 0.4, best + 0.45, 0.1), key=sharpness)
    clear = sharpness(float(best)) > 1.1 * sharpness(0.0)
    return float(best) if clear and abs(best) >= LEVEL_DEGREES else 0.0


def _denoise(page: Pixels, sigma: float) -> Pixels:
    import cv2

    strength = min(sigma, 60.0)
    return cast("Pixels", cv2.fastNlMeansDenoising(page, None, strength, 3, 11))


def _normalize(page: Pixels, letter: int) -> Pixels:
    """Divide by the ground (a closing that swallows strokes, smoothed) and stretch the ink to black.

    The closing's window is as high as a letter: wider frames, gaps between keys and shadows are ground, not ink.
    """
    import cv2

    shrink = max(1.0, max(page.shape) / 800)
    side = max(7, round(letter / shrink)) | 1
    small = cv2.resize(page, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    ground = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    ground = cv2.GaussianBlur(ground, (0, 0), side / 4)
    ground = cv2.resize(ground, (page.shape[1], page.shape[0]), interpolation=cv2.INTER_LINEAR)
    even = cv2.divide(page, ground, scale=255).astype(np.float32)
    dark = float(np.percentile(even, 0.5))
    light = 255.0 - FAINT * (255.0 - dark)
    return cast("Pixels", np.clip((even - dark) * (255.0 / max(light - dark, 30.0)), 0, 255).astype(np.uint8))


def _ink(page: Pixels) -> Pixels:
    import cv2

    return cast("Pixels", cv2.threshold(page, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1])


def _letters(ink: Pixels) -> tuple[float, list[Box]]:
    """The median height of letters (0.0 for fewer than five), and solid boxes that light letters may stand on."""
    import cv2

    _, _, stats, _ = cv2.connectedComponentsWithStats(ink)
    stats = stats[1:]
    heights, widths, areas = (stats[:, side] for side in (cv2.CC_STAT_HEIGHT, cv2.CC_STAT_WIDTH, cv2.CC_STAT_AREA))
    letters = heights[(heights >= 4) & (heights <= 80) & (widths <= 4 * heights) & (heights <= 8 * widths)]
    if len(letters) < 5:
        return 0.0, []
    letter = float(np.median(letters))
    wide = (widths > 1.3 * heights) & (heights > 1.4 * letter) & (areas > 0.55 * widths * heights)
    boxes = [(int(left), int(top), int(width), int(height)) for left, top, width, height in stats[wide, :4]]
    return letter, [box for box in boxes if _filled(ink, box)]


def _filled(ink: Pixels, box: Box) -> bool:
    """Whether the box's upper and lower edges are ink throughout, as a button's are and a letter's are not."""
    left, top, width, height = box
    inner = ink[top : top + height, left + width // 8 : left + width - width // 8]
    edge = max(1, height // 10)
    return bool(min(inner[:edge].mean(), inner[-edge:].mean()) > 0.9 * 255 and inner.mean() < 0.98 * 255)


def _inverted(page: Pixels, ink: Pixels, boxes: list[Box]) -> Pixels:
    """Light letters on dark boxes become dark letters on light ones."""
    import cv2

    page = page.copy()
    for left, top, width, height in boxes:
        where = np.s_[top : top + height, left : left + width]
        outlines, _ = cv2.findContours(ink[where].copy(), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        inside = np.zeros((height, width), np.uint8)
        cv2.drawContours(inside, outlines, -1, 255, cv2.FILLED)
        page[where] = np.where(inside > 0, 255 - page[where], page[where])
    return page


def _warp(page: Pixels, angle: float, scale: float) -> tuple[Pixels, NDArray[np.float64]]:
    """Rotate, scale and add a border in one resampling."""
    import cv2

    height, width = page.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -angle, scale).astype(np.float64)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = np.array([width * cosine + height * sine, width * sine + height * cosine]) + 2 * BORDER
    matrix[:, 2] += size / 2 - np.array([width / 2, height / 2])
    out = (round(size[0]), round(size[1]))
    ground = float(np.median(page))
    warped = cv2.warpAffine(
        page, matrix, out, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=ground
    )
    return cast("Pixels", warped), matrix


def _unrule(page: Pixels, letter: float) -> bool:
    """Paint straight lines that are longer than five letters are high, and thinner than half, white in place.

    Tesseract takes the cells of a ruled table, or the whole table, for a picture.
    """
    import cv2

    ink = cast("Pixels", cv2.threshold(page, FAINT_RULE, 255, cv2.THRESH_BINARY_INV)[1])
    length, thick = max(40, round(5 * letter)), max(3, round(letter / 2))

    def opened(mask: Pixels, height: int, width: int) -> Pixels:
        return cast("Pixels", cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((height, width), np.uint8)))

    level, upright = opened(ink, 1, length), opened(ink, length, 1)
    thin_level, thin_upright = level & ~opened(level, thick, 1), upright & ~opened(upright, 1, thick)
    # Where a letter touches a line, or a bold letter's stroke is a line, the ink is thick: it stays.
    rules = level & ~opened(ink & ~thin_upright, thick, 1) | upright & ~opened(ink & ~thin_level, 1, thick)
    # Next to the solid part of a dark box, what is left of it between its light letters is no line.
    side = 2 * max(4, round(letter))
    rules = rules & ~cast("Pixels", cv2.dilate(opened(ink, side, side), np.ones((side, side), np.uint8)))
    page[cv2.dilate(rules, np.ones((3, 3), np.uint8)) > 0] = 255
    return bool(rules.any())


def _threshold(page: Pixels, how: Threshold) -> Pixels:
    import cv2

    if how == "otsu":
        return cast("Pixels", cv2.threshold(page, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1])
    mean = cv2.ADAPTIVE_THRESH_GAUSSIAN_C
    return cast("Pixels", cv2.adaptiveThreshold(page, 255, mean, cv2.THRESH_BINARY, 31, 15))
