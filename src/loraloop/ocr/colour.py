"""Pictures in grey, so that words on coloured boxes keep their contrast.

White letters on an orange button are nearly as bright as the button: by luminance alone they are lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Place = tuple[slice, slice]

APART = 40  # levels of a channel by which a box differs from the page's ground
FLAT = 32  # levels within which the pixels of a box's own colour lie
SIDE = 16  # pixels of the lowest box that can hold letters
WIDE = 1.3  # least width of a box, in heights
SOLID = 0.6  # share of its bounds that a box fills, letters aside
LETTERS = (0.005, 0.45)  # share of a box that its letters may cover
CONTRAST = 50  # levels by which letters stand out from their box


def grey(picture: Pixels) -> Pixels:
    """A picture by luminance, where flat boxes of another colour than the page's ground have dark letters on light.

    The letters of each box are read in the channel in which they stand out most.

    Args:
        picture: RGB, or grey already.
    """
    from PIL import Image

    colours = picture.ndim == 3
    even = np.array(Image.fromarray(picture).convert("L"))
    channels = [picture[..., number] for number in range(3)] if colours else [even]
    for where, inside in _boxes(channels):
        box = np.stack([channel[where] for channel in channels], axis=2)
        views = [even[where], box.min(axis=2), box.max(axis=2)] if colours else [even[where]]
        legible = _legible(box, views, inside)
        if legible is not None:
            even[where] = np.where(inside, legible, even[where])
    return even


def _boxes(channels: Sequence[Pixels]) -> Iterator[tuple[Place, NDArray[np.bool_]]]:
    """Where solid regions of another colour than the page's lie, and which pixels there are theirs or in them."""
    import cv2

    apart = np.zeros(channels[0].shape, np.uint8)
    for channel in channels:
        ground = np.int16(np.median(channel[::4, ::4]))
        apart |= (np.abs(channel.astype(np.int16) - ground) > APART).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(apart, connectivity=4)
    widths, heights, areas = (stats[1:, side] for side in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    solid = (heights >= SIDE) & (widths > WIDE * heights) & (areas > SOLID * widths * heights)
    for number in 1 + np.flatnonzero(solid):
        left, top, width, height = (int(value) for value in stats[number, :4])
        where = np.s_[top : top + height, left : left + width]
        own = (labels[where] == number).astype(np.uint8)
        if not _edged(own):
            continue
        outlines, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        yield where, cv2.drawContours(np.zeros((height, width), np.uint8), outlines, -1, 1, cv2.FILLED) > 0


def _edged(own: Pixels) -> bool:
    """Whether the region's upper and lower edges are its own throughout, as a box's are and joined letters' are not."""
    height, width = own.shape
    inner, edge = own[:, width // 8 : width - width // 8], max(2, height // 8)
    return bool(min(inner[:edge].mean(), inner[-edge:].mean()) > 0.95)


def _legible(box: Pixels, views: Sequence[Pixels], inside: NDArray[np.bool_]) -> Pixels | None:
    """The view of the box with the most contrast, dark letters on light; ``None`` where luminance has that already."""
    import cv2

    inner = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    if not inner.any():
        return None
    colour = np.median(box[inner], axis=0)
    letters = inner & (np.abs(box - colour).max(axis=2) > FLAT)
    if not LETTERS[0] <= letters.sum() / inner.sum() <= LETTERS[1]:
        return None
    standing = [float(np.median(view[letters])) - float(np.median(view[inner])) for view in views]
    best = max(range(len(views)), key=lambda view: abs(standing[view]))
    if abs(standing[best]) < CONTRAST or (standing[best] < 0 and standing[0] < -CONTRAST):
        return None
    return 255 - views[best] if standing[best] > 0 else views[best]
