"""Made pages as offices and readers have them: books, forms, tables, columns, charts and the like, with their text.

The text is in reading order, one line per line of print: column after column, a form's label before its value, a table
row by row, a record's row of labels before its row of values, a chart's boxes row by row. Type sizes are in points, on
sheets of 150 to 200 dots per inch: 1 to 4 megapixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from loraloop.source.vault import fonts
from loraloop.source.vault.degrade import Pixels
from loraloop.source.vault.prose import Prose

Layout = Literal[
    "book", "form", "table", "two_columns", "three_columns", "receipt", "slide", "newspaper", "record", "chart"
]

INK = 24
RULE = 96
Inches = tuple[float, float]
A4: Inches = (8.27, 11.69)


@dataclass(frozen=True, slots=True)
class Document:
    """A made page: grey pixels and the exact text on it, in reading order."""

    pixels: Pixels
    text: str


def compose(layout: Layout, prose: Prose, faces: Sequence[str], dpi: int, rng: Generator) -> Document:
    """Print one page of ``layout``: ``prose`` is what it says, one of ``faces`` what it is set in."""
    sheet = _Sheet(_SIZES.get(layout, A4), dpi, faces, int(rng.integers(1 << 16)))
    _LAYOUTS[layout](sheet, prose, rng)
    return Document(np.asarray(sheet.image), "\n".join(sheet.lines))


class _Sheet:
    """Paper; lengths are in inches, and whatever is written is also noted, in the order of writing."""

    def __init__(self, size: Inches, dpi: int, faces: Sequence[str], face: int) -> None:
        from PIL import Image, ImageDraw

        self.width, self.height = size
        self._dpi, self._faces, self._face = dpi, faces, face
        self.image = Image.new("L", (round(size[0] * dpi), round(size[1] * dpi)), 255)
        self._draw = ImageDraw.Draw(self.image)
        self.lines: list[str] = []

    def write(self, x: float, y: float, text: str, points: float) -> None:
        """Write one line and note it as one."""
        self.mark(x, y, text, points)
        self.lines.append(text)

    def mark(self, x: float, y: float, text: str, points: float) -> None:
        """Write without a note: part of a line that is noted as a whole."""
        self._draw.text((x * self._dpi, y * self._dpi), text, fill=INK, font=self._font(points))

    def paragraph(self, x: float, y: float, width: float, text: str, points: float, bottom: float = 99.0) -> float:
        """Write ``text`` justified to ``width`` until ``bottom``; returns where the next line would be."""
        lines = self._broken(text, width, points)
        for number, words in enumerate(lines):
            if y + points / 72 > bottom:
                break
            self._justified(x, y, words, points, width if number + 1 < len(lines) else 0.0)
            self.lines.append(" ".join(words))
            y += 1.35 * points / 72
        return y

    def rule(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw a thin straight line."""
        ends = [round(value * self._dpi) for value in (x1, y1, x2, y2)]
        self._draw.line(ends, fill=RULE, width=max(1, self._dpi // 100))

    def box(self, x1: float, y1: float, x2: float, y2: float, grey: int) -> None:
        """Fill a rectangle."""
        self._draw.rectangle([round(value * self._dpi) for value in (x1, y1, x2, y2)], fill=grey)

    def frame(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw a rectangle's four sides."""
        for ends in ((x1, y1, x2, y1), (x1, y2, x2, y2), (x1, y1, x1, y2), (x2, y1, x2, y2)):
            self.rule(*ends)

    def photograph(self, x1: float, y1: float, x2: float, y2: float, rng: Generator) -> None:
        """Fill a rectangle with soft shapes of all greys, in which there is nothing to read."""
        from PIL import Image

        shapes = Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8))
        left, top, right, bottom = (round(value * self._dpi) for value in (x1, y1, x2, y2))
        self.image.paste(shapes.resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))

    def length(self, text: str, points: float) -> float:
        """Width of ``text``."""
        return float(self._font(points).getlength(text)) / self._dpi

    def _font(self, points: float) -> fonts.Font:
        return fonts.font(self._faces, self._face, round(points * self._dpi / 72))

    def _broken(self, text: str, width: float, points: float) -> list[list[str]]:
        lines: list[list[str]] = [[]]
        for word in text.split():
            if lines[-1] and self.length(" ".join([*lines[-1], word]), points) > width:
                lines.append([])
            lines[-1].append(word)
        return lines

    def _justified(self, x: float, y: float, words: Sequence[str], points: float, width: float) -> None:
        natural = self.length(" ".join(words), points)
        stretch = (width - natural) / (len(words) - 1) if width and len(words) > 1 else 0.0
        for word in words:
            self.mark(x, y, word, points)
            x += self.length(word + " ", points) + stretch


def _book(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
    points = float(rng.choice([10, 11, 12]))
    sheet.write(1.0, 0.6, prose.title(), points - 1)
    y = 1.1
    while y < sheet.height - 1.3:
        y = sheet.paragraph(1.0, y, sheet.width - 2.0, prose.paragraph(5), points, sheet.height - 1.0) + 0.1
    sheet.write(sheet.width / 2, sheet.height - 0.8, prose.number(1, 400), points)


def _columns(count: int) -> Callable[[_Sheet, Prose, Generator], None]:
    def fill(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
        points, gap, margin = float(rng.choice([9, 10])), float(rng.uniform(0.22, 0.35)), 0.7
        sheet.write(margin, 0.6, prose.title(), 20)
        width = (sheet.width - 2 * margin - gap * (count - 1)) / count
        for column in range(count):
            x, y = margin + column * (width + gap), 1.3
            while y < sheet.height - 1.0:
                y = sheet.paragraph(x, y, width, prose.paragraph(4), points, sheet.height - 0.7) + 0.1

    return fill


def _form(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
    sheet.write(0.8, 0.6, prose.title(), 18)
    y = 1.4
    for _ in range(int(rng.integers(5, 8))):
        pairs = [f"{label}: {prose.entry()}" for label in prose.labels(2)]
        for pair, x in zip(pairs, (0.8, 4.3), strict=True):
            label, _, value = pair.partition(": ")
            sheet.mark(x, y, f"{label}:", 10)
            sheet.mark(x + 1.1, y, value, 11)
            sheet.rule(x + 1.1, y + 0.22, x + 3.1, y + 0.22)
        sheet.lines.append(" ".join(pairs))
        y += 0.5
    sheet.paragraph(0.8, y + 0.2, sheet.width - 1.6, prose.paragraph(4), 10)


def _table(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
    columns, rows, ruled = int(rng.integers(4, 6)), int(rng.integers(14, 24)), bool(rng.integers(2))
    left, top, step = 0.7, 1.5, 0.36
    width = (sheet.width - 2 * left) / columns
    sheet.write(left, 0.7, prose.title(), 16)
    for row in range(rows):
        cells = prose.labels(columns) if row == 0 else [prose.entry() for _ in range(columns)]
        for column, cell in enumerate(cells):
            sheet.mark(left + column * width + 0.08, top + row * step + 0.08, cell, 10)
        sheet.lines.append(" ".join(cells))
    for row in range(rows + 1) if ruled else (0, 1, rows):
        sheet.rule(left, top + row * step, sheet.width - left, top + row * step)
    for column in range(columns + 1) if ruled else ():
        sheet.rule(left + column * width, top, left + column * width, top + rows * step)


def _receipt(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
    points, left = float(rng.choice([11, 12])), 0.4
    sheet.write(left + 0.8, 0.4, f"{prose.noun().title()} {prose.noun().title()} Shop", 16)
    y = 1.0
    for line in (f"{prose.number(1, 99)} {prose.noun().title()} Street", f"Receipt {prose.number(1000, 9999)}"):
        sheet.write(left, y, line, points)
        y += 0.25
    y += 0.15
    for item in [*(prose.noun().title() for _ in range(int(rng.integers(12, 20)))), "Total", "Cash", "Change"]:
        price = prose.price()
        sheet.mark(left, y, item, points)
        sheet.mark(sheet.width - left - sheet.length(price, points), y, price, points)
        sheet.lines.append(f"{item} {price}")
        y += 0.27
    sheet.write(left, y + 0.2, "Thank you for your visit", points)


def _slide(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
    sheet.box(0, 0, sheet.width, 1.5, int(rng.integers(205, 235)))
    sheet.write(0.6, 0.45, prose.title(), 30)
    y = 2.1
    for _ in range(int(rng.integers(4, 6))):
        sheet.box(0.65, y + 0.12, 0.77, y + 0.24, RULE)
        y = sheet.paragraph(0.95, y, sheet.width - 1.8, prose.sentence(), 20) + 0.2
    sheet.write(sheet.width - 1.2, sheet.height - 0.5, prose.number(2, 80), 12)


def _newspaper(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
    sheet.write(0.5, 0.5, prose.title(), 20)
    sheet.photograph(2.4, 1.4, sheet.width - 0.5, 5.0, rng)
    points, width = 7.5, (sheet.width - 1.0 - 3 * 0.14) / 4
    for column in range(4):
        x, y = 0.5 + column * (width + 0.14), 1.4 if column == 0 else 5.2
        while y < sheet.height - 0.8:
            y = sheet.paragraph(x, y, width, prose.paragraph(3), points, sheet.height - 0.6)


def _record(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
    sheet.write(2.5, 0.6, prose.title(), 16)
    y = 1.3
    while y < sheet.height - 1.2:
        columns = int(rng.integers(3, 6))
        width = (sheet.width - 1.2) / columns
        cells = [(label, prose.entry()) for label in prose.labels(columns)]
        for place, (label, value) in enumerate(cells):
            x = 0.6 + place * width
            sheet.mark(x + 0.06, y + 0.04, label, 8)
            sheet.mark(x + 0.06, y + 0.2, value, 9)
            sheet.frame(x, y, x + width, y + 0.42)
        sheet.lines += [" ".join(line) for line in zip(*cells, strict=True)]
        y += 0.42 if rng.integers(3) else 0.6


def _chart(sheet: _Sheet, prose: Prose, rng: Generator) -> None:
    """Boxes in three columns, some left out, each of one or two lines, joined by straight lines from row to row."""
    sheet.write(0.6, 0.6, prose.title(), 16)
    for row in range(5):
        y = 1.5 + 1.9 * row
        places = [place for place in range(3) if rng.integers(4)] or [1]
        texts = [prose.title().split()[:3] for _ in places]
        for place, words in zip(places, texts, strict=True):
            x = 0.6 + 2.5 * place
            sheet.frame(x, y, x + 2.0, y + 0.9)
            for number, line in enumerate((" ".join(words[:2]), " ".join(words[2:]))):
                sheet.mark(x + 1.0 - sheet.length(line, 11) / 2, y + 0.2 + 0.25 * number, line, 11)
            sheet.rule(x + 1.0, y + 0.9, 0.6 + 2.5 * int(rng.integers(3)) + 1.0, y + 1.9)
        sheet.lines += [" ".join(words) for words in texts]
    sheet.write(0.6, sheet.height - 0.6, prose.sentence(), 9)


_SIZES: dict[Layout, Inches] = {"receipt": (4.2, 9.0), "slide": (10.0, 7.5)}
_LAYOUTS: dict[Layout, Callable[[_Sheet, Prose, Generator], None]] = {
    "book": _book,
    "form": _form,
    "table": _table,
    "two_columns": _columns(2),
    "three_columns": _columns(3),
    "receipt": _receipt,
    "slide": _slide,
    "newspaper": _newspaper,
    "record": _record,
    "chart": _chart,
}
