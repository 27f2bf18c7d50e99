"""How many planted secrets are found, and how often ordinary pages raise an alarm: this package beside detect-secrets.

The planted pages are the held-out ones of ``planted.py``, with a seed that no rule was tuned on. Run it as
``python benchmarks/secret_finding.py``; it writes ``benchmarks/results/secrets.json``.
"""

import ast
import importlib.util
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
from machine import describe
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont
from planted import HELD_OUT, Page, misread, planted, receipt, recognised
from rapidfuzz.fuzz import partial_ratio

from loraloop.core.secrets import find
from loraloop.ocr.tesseract import Tesseract

RESULT = Path(__file__).parent / "results" / "secrets.json"
SEED = 4711
EACH = 60
DRAWN = 12
FONTS = ("DejaVuSans.ttf", "DejaVuSansMono.ttf", "LiberationSans-Regular.ttf", "LiberationSerif-Regular.ttf")
MODULES = "xml.dom.minidom multiprocessing.pool concurrent.futures tkinter email.policy zoneinfo sqlite3.dbapi2 turtle"

Span = tuple[int, int]
Finder = Callable[[str], list[Span]]


def ours(text: str) -> list[Span]:
    return [(secret.start, secret.end) for secret in find(text)]


def alone() -> Finder:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    plugins = [kind() for kind in get_mapping_from_secret_type_to_class().values()]

    def spans(text: str) -> Iterator[Span]:
        start = 0
        for line in text.splitlines(keepends=True):
            for value in (str(value) for plugin in plugins for value in plugin.analyze_string(line)):
                if value and value in line:
                    yield start + line.index(value), start + line.index(value) + len(value)
            start += len(line)

    return lambda text: list(spans(text))


def draw(text: str, path: Path, rng: Generator, poor: bool) -> None:
    font = ImageFont.truetype(FONTS[int(rng.integers(len(FONTS)))], int(rng.integers(15 if poor else 22, 28)))
    size = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font, spacing=10)
    image = Image.new("L", (int(size[2]) + 60, int(size[3]) + 60), 235)
    ImageDraw.Draw(image).multiline_text((30, 30), text, fill=40, font=font, spacing=10)
    noisy = np.asarray(image) + rng.normal(0, 14 if poor else 0, (image.height, image.width))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=45 if poor else 95)


def read(texts: list[str], poor: bool) -> list[str]:
    """The texts drawn and read by the default engine."""
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        images = [Path(folder) / f"{number:04d}.jpg" for number in range(len(texts))]
        for text, image in zip(texts, images, strict=True):
            draw(text, image, rng, poor)
        return [page.text for page in Tesseract(cache=None).read(images)]


def touched(page: Page, finder: Finder) -> bool:
    return page.covered(finder(page.text)) > 0


def similar(secret: str, text: str, finder: Finder) -> bool:
    """Whether something was found in a recognised text that is the secret or a good part of it."""
    bare = re.sub(r"\s", "", secret)
    return any(partial_ratio(bare, re.sub(r"\s", "", text[start:end])) > 60 for start, end in finder(text))


def recall(finder: Finder) -> dict[str, dict[str, float]]:
    pages = planted(HELD_OUT, SEED, EACH)
    table: dict[str, dict[str, float]] = {"as planted": shares((page.kind, touched(page, finder)) for page in pages)}
    for swaps in (0.15, 0.3):
        rng = np.random.default_rng(SEED)
        worse = [misread(page, rng, swaps) for page in pages]
        table[f"{swaps:.0%} of look-alikes swapped"] = shares((page.kind, touched(page, finder)) for page in worse)
    for name, texts in READINGS.items():
        pairs = zip(PAGES, texts, strict=True)
        table[name] = shares((page.kind, similar(page.secret, text, finder)) for page, text in pairs)
    return table


def shares(found: Iterable[tuple[str, bool]]) -> dict[str, float]:
    results = list(found)
    totals, hits = Counter(kind for kind, _ in results), Counter(kind for kind, hit in results if hit)
    return {"all": hits.total() / totals.total()} | {kind: hits[kind] / totals[kind] for kind in totals}


def prose() -> Iterator[str]:
    """Text without code: descriptions of installed packages and documentation of modules."""
    for found in distributions():
        told = re.sub(r"```.*?```", "", (found.metadata.get_payload() or ""), flags=re.DOTALL)
        yield from (part for part in paragraphs(str(told)) if share_of_letters(part) > 0.85)
    for name in MODULES.split():
        source = Path(importlib.util.find_spec(name).origin).read_text("utf-8")
        told = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        ]
        for text in filter(None, map(ast.get_docstring, told)):
            yield from paragraphs(text)


def paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text) if len(part) > 60]


def share_of_letters(text: str) -> float:
    return sum(mark.isalpha() or mark.isspace() for mark in text) / len(text)


def pages_of(parts: list[str]) -> list[str]:
    return ["\n\n".join(parts[start : start + 5]) for start in range(0, len(parts), 5)]


def alarms(finder: Finder) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(SEED)
    ordinary = {"prose": pages_of(list(prose())), "receipts": [receipt(rng) for _ in range(1000)]}
    table = {}
    for name, texts in ordinary.items():
        table[f"{name}, as written"] = texts
        table[f"{name}, 15% of look-alikes swapped"] = [recognised(text, rng) for text in texts]
    table["receipts, drawn poorly and read"] = RECEIPTS
    return {
        name: {"pages": len(texts), "alarms": round(sum(bool(finder(text)) for text in texts) / len(texts), 4)}
        for name, texts in table.items()
    }


PAGES = planted(HELD_OUT, SEED + 1, DRAWN)
READINGS = {
    "drawn well and read by Tesseract": read([page.text for page in PAGES], poor=False),
    "drawn poorly and read by Tesseract": read([page.text for page in PAGES], poor=True),
}
RECEIPTS = read([receipt(np.random.default_rng([SEED, number])) for number in range(60)], poor=True)


def main() -> None:
    finders = {"loraloop": ours, "detect-secrets alone": alone()}
    report = {
        **describe("detect-secrets", "pytesseract"),
        "secrets": {"typed": 7 * EACH, "drawn": 7 * DRAWN, "seed": SEED},
        "found": {name: recall(finder) for name, finder in finders.items()},
        "false_alarms_per_page": {name: alarms(finder) for name, finder in finders.items()},
    }
    for name, table in report["found"].items():
        print(name)
        for how, kinds in table.items():
            print(f"  {how:36}", "  ".join(f"{kind} {share:.1%}" for kind, share in kinds.items()))
        for how, told in report["false_alarms_per_page"][name].items():
            print(f"  {how:36} {told['alarms']:.2%} of {told['pages']} pages")
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
