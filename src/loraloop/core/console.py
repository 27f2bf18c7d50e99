"""Printing: tables and lines on standard output, and where a trial's output goes."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from loraloop.core import tables
from loraloop.core.passwords import MaskedStream
from loraloop.records import Quarantined

if TYPE_CHECKING:
    from loraloop.records import Job

NAMES = 3
REASONS = 10


@contextmanager
def output_into(file: Path) -> Iterator[None]:
    """Append what is printed to a file, with passwords of URLs masked."""
    with file.open("a", encoding="utf8") as stream:
        masked = cast("TextIO", MaskedStream(stream))
        with redirect_stdout(masked), redirect_stderr(masked):
            yield


@contextmanager
def redirect_output(job: Job) -> Iterator[None]:
    """What a job prints; a trial of a sweep, one of many, prints into ``console.txt`` in its folder."""
    if job.trial is None:
        yield
        return
    screens = [each for each in logging.getLogger().handlers if type(each) is logging.StreamHandler]
    levels = [screen.level for screen in screens]
    job.output.mkdir(parents=True, exist_ok=True)
    with output_into(job.output / "console.txt"):
        try:
            for screen in screens:
                screen.setLevel(logging.WARNING)
            yield
        finally:
            for screen, level in zip(screens, levels, strict=True):
                screen.setLevel(level)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> None:
    """Print a table; the columns after the first are aligned to the right where they hold numbers.

    Cells are folded between words alone: where the words do not fit either, the lines are longer than the terminal.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    least = 1
    view = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        cells = [column, *(row[index] for row in rows)]
        whole = any("\u00b1" in cell for cell in cells)  # a value stays on one line with its error
        width = max((len(word) for cell in cells for word in ([cell] if whole else cell.split())), default=0)
        view.add_column(column, justify="right" if index and numbers else "left", min_width=width, no_wrap=whole)
        least += width + 4  # with the padding and the gap that rich puts around it
    for row in rows:
        view.add_row(*row)
    out = Console(highlight=False, markup=False, force_jupyter=False)  # a notebook would show the drawing too
    out.width = max(out.width, least)
    with out.capture() as drawn:
        out.print(view)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines() if line.strip()))


def facts(title: str, values: Mapping[str, str]) -> None:
    """Print names and values, one a line; further lines of a value stand below its first."""
    width = max(map(len, values))
    below = "\n" + " " * (width + 4)
    print(title)
    for name, value in values.items():
        shown = value.replace("\n", below)
        print(f"  {name:<{width}}  {shown}")


def quarantine(items: Sequence[Quarantined], title: str = "quarantined", every: Path | None = None) -> None:
    """Print how many items were set aside, by reason, with the first few names.

    Args:
        items: What was set aside.
        title: What became of it.
        every: Where all items are written, one JSON object a line, if not all are printed.

    Raises:
        DataError: ``every`` cannot be written.
    """
    if not items:
        return
    print(f"{title}: {len(items)}")
    names: dict[str, list[str]] = {}
    for item in items:
        names.setdefault(item.reason, []).append(item.item)
    common = sorted(names.items(), key=lambda each: -len(each[1]))
    for reason, having in common[:REASONS]:
        more = f" and {len(having) - NAMES} more" if len(having) > NAMES else ""
        print(f"  {len(having)} x {reason}: {', '.join(map(printable, having[:NAMES]))}{more}")
    if others := common[REASONS:]:
        print(f"  {sum(len(having) for _, having in others)} for {len(others)} other reasons")
    if every and (others or any(len(having) > NAMES for _, having in common)):
        tables.write(every, [{"item": printable(each.item), "reason": printable(each.reason)} for each in items])
        print(f"  all of them: {every}")


def printable(text: str) -> str:
    r"""The text with ``\x`` in place of each byte of a file's name that is not UTF-8."""
    return text.encode("utf8", "surrogateescape").decode("utf8", "backslashreplace")


def flatten(node: Any, path: str = "") -> dict[str, str]:
    """Dotted keys of nested mappings, in order; lists become JSON, ``_target_`` is left out."""
    if not isinstance(node, Mapping):
        return {path: json.dumps(node) if isinstance(node, list) else str(node)}
    flat: dict[str, str] = {}
    for key, value in node.items():
        if key != "_target_":
            flat.update(flatten(value, f"{path}.{key}" if path else str(key)))
    return flat


def size(count: float) -> str:
    """A number of bytes in the unit people read."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds as ``42 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def value_with_error(value: float, error: float | None) -> str:
    """``0.894 \u00b1 0.012``: the error with two significant digits, the value with as many decimals.

    Without an error, four decimals, or four significant digits for a large value.
    """
    if error is None or not math.isfinite(error) or not math.isfinite(value):
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
    decimals = min(6, max(0, 1 - math.floor(math.log10(error)))) if error else 3
    return f"{value:.{decimals}f} \u00b1 {error:.{decimals}f}"
