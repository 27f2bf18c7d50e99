"""Transparent pictures as a person would see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

PLAIN = 32  # grey levels between the lightest and the darkest pixel of a picture on which nothing is seen


def opaque(image: Image) -> Image:
    """A picture with transparency on white; on black where hardly anything is seen on white. Others as they are."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    on_white, on_black = (
        Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")
        for ground in ("white", "black")
    )
    return on_white if _contrast(on_white) > PLAIN or _contrast(on_black) <= PLAIN else on_black


def _contrast(image: Image) -> int:
    extremes: Any = image.convert("L").getextrema()
    return int(extremes[1] - extremes[0])
