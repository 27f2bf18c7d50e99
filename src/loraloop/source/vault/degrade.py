"""What cameras, scanners and screens do to a picture; all randomness comes from the generator given."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def rotate(picture: Pixels, degrees: float) -> Pixels:
    """Turn counter-clockwise about the centre; the canvas grows, and the edge's pixels fill its corners."""
    import cv2

    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = (round(width * cosine + height * sine), round(width * sine + height * cosine))
    matrix[:, 2] += ((size[0] - width) / 2, (size[1] - height) / 2)
    turned = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return cast("Pixels", turned)


def perspective(picture: Pixels, share: float, rng: Generator) -> Pixels:
    """See the picture from aslant: every corner moves inwards by up to ``share`` of the picture's sides."""
    import cv2

    height, width = picture.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * rng.uniform(0, share, (4, 2)) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners, (corners + inwards).astype(np.float32))
    seen = cv2.warpPerspective(picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return cast("Pixels", seen)


def blur(picture: Pixels, deviation: float) -> Pixels:
    """Put the picture out of focus by a Gaussian of ``deviation`` pixels."""
    import cv2

    return cast("Pixels", cv2.GaussianBlur(picture, (0, 0), deviation))


def noise(picture: Pixels, deviation: float, rng: Generator) -> Pixels:
    """Add Gaussian noise, ``deviation`` in grey levels, the same on every channel."""
    grain = rng.normal(0.0, deviation, picture.shape[:2]).astype(np.float32)
    return _clip(picture + (grain if picture.ndim == 2 else grain[..., None]))


def fade(picture: Pixels, rng: Generator) -> Pixels:
    """Lower the contrast to about a half, around a grey."""
    return _clip(rng.uniform(60, 90) + picture * rng.uniform(0.45, 0.6))


def shade(picture: Pixels, rng: Generator) -> Pixels:
    """Let light fall from one side; the far corner keeps a third to a half of it."""
    height, width = picture.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:height, 0:width]
    light = columns / width * np.cos(angle) + rows / height * np.sin(angle)
    light = (light - light.min()) / (light.max() - light.min())
    floor = rng.uniform(0.35, 0.5)
    return _clip(picture * (floor + (1 - floor) * light)[..., None])


def dither(page: Pixels, grey: int, scale: float) -> Pixels:
    """Print a grey page of ``grey`` ink in black dots alone, as fax machines do, and scale it up smoothly by ``scale``.

    Letters become jagged, with specks around them, and thin lines become dots.
    """
    import cv2
    from PIL import Image

    height, width = page.shape
    small = cv2.resize(page, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    faded = _clip(grey + small * ((255 - grey) / 255.0))
    dots = np.asarray(Image.fromarray(faded).convert("1").convert("L"))
    return cast("Pixels", cv2.resize(dots, (width, height), interpolation=cv2.INTER_CUBIC))


def coarse(picture: Pixels, share: float) -> Pixels:
    """Keep ``share`` of the picture's resolution, as screens and previews do."""
    import cv2

    return cast("Pixels", cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))


def jpeg(picture: Pixels, quality: int) -> Pixels:
    """Compress and decompress; ``quality`` in 1..100."""
    import cv2

    _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cast("Pixels", cv2.imdecode(packed, cv2.IMREAD_UNCHANGED))


def _clip(picture: NDArray[np.floating]) -> Pixels:
    return cast("Pixels", np.clip(picture, 0, 255).round().astype(np.uint8))
