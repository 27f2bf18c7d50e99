"""Make the picture and the table of the retraining cycle from loraloop.core.transitions.

    python scripts/cycle_diagram.py [--check]

Writes docs/images/cycle.svg, and the table between the markers of the page that has them. With ``--check`` it writes
nothing and fails where one of them is not what the transitions say.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from loraloop.core.transitions import SERVED, TABLE, Transition

DOCS = Path(__file__).parents[1] / "docs"
PICTURE = DOCS / "images" / "cycle.svg"
PAGES = (DOCS / "loop.md", DOCS / "loop_state.md")
BEGIN, END = "<!-- transitions: made by scripts/cycle_diagram.py -->", "<!-- end of transitions -->"

WIDTH, HEIGHT, STEP, BOX, TALL = 1240, 500, 156, 108, 52
TOP, MIDDLE, LOW, BOTTOM = 46, 206, 330, 400
COLORS = {"tick": "#3b5b92", "canary rule": "#4f7a2f", "stage=rollout": "#b3541e", "stage=rollback": "#b3541e"}
DASHED = ("stage=rollout", "stage=rollback")
SLOT = 30
"""Pixels between two arrows of one pair of states."""


class Box(NamedTuple):
    """A state's place, in pixels."""

    x: float
    y: float
    width: float = BOX

    @property
    def center(self) -> float:
        """The middle of its width."""
        return self.x + self.width / 2


def column(number: int) -> float:
    """The left edge of a column of states."""
    return 24 + STEP * number


def wide(first: int, last: int, y: float, inset: float = 0) -> Box:
    """A box below or above several columns."""
    return Box(column(first) + inset, y, column(last) - column(first) + BOX - inset)


WAY = ("idle", "triggered", "prepared", "trained", "registered", "canary", "promoting", "promoted")
PLACES = {state: Box(column(number), MIDDLE) for number, state in enumerate(WAY)} | {
    "stopped": wide(1, 6, TOP),
    "failed": Box(column(2), LOW),
    "refused": wide(1, 3, BOTTOM),
    "rolled_back": wide(5, 6, BOTTOM, inset=34),
}
FILLS = {"canary": ("#f3f8ee", "#4f7a2f"), "promoting": ("#f3f8ee", "#4f7a2f"), "idle": ("#ffffff", "#778")}
ENDED = ("#f4f4f6", "#778")
OPEN = ("#eef3fb", "#3b5b92")


def text(x: float, y: float, words: str, *, size: int = 12, color: str = "#334", anchor: str = "middle") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{color}">{words}</text>'


def state(name: str, box: Box) -> str:
    """A state."""
    ended = not any(row.source == name for row in TABLE)
    fill, stroke = ENDED if ended else FILLS.get(name, OPEN)
    rectangle = f'<rect x="{box.x:g}" y="{box.y}" width="{box.width:g}" height="{TALL}" rx="8" fill="{fill}"'
    words = text(box.center, box.y + TALL / 2 + 5, name, size=15, color="#1d2f52")
    return f'{rectangle} stroke="{stroke}" stroke-width="1.5"/>\n{words}'


def label(row: Transition, x: float, y: float, anchor: str = "middle") -> list[str]:
    """The event, and below it the alias that it moves."""
    color = COLORS[row.mover]
    words = (row.event or "no entry") + " !" * row.alert
    lines = [text(x, y, words, color=color, anchor=anchor)]
    if row.alias:
        name = "champion" if row.alias == SERVED else row.alias
        lines.append(text(x, y + 13, f"alias {name}", size=10, color=color, anchor=anchor))
    return lines


def arrow(row: Transition, path: str) -> str:
    """An arrow in its mover's colour."""
    color = COLORS[row.mover]
    dash = ' stroke-dasharray="5 3"' if row.mover in DASHED else ""
    head = f"url(#head{color[1:]})"
    return f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.6"{dash} marker-end="{head}"/>'


def drawn(row: Transition, slot: float, side: str) -> list[str]:
    """The arrow of a row and its label.

    Args:
        row: A row of the table.
        slot: Pixels by which it stands beside the middle, where several rows have the same two states.
        side: Where its label is: ``start`` is right of the arrow, ``end`` left of it.
    """
    source, target = PLACES[row.source], PLACES[row.target]
    if row.source == row.target:
        x, y = source.center, source.y
        return [arrow(row, f"M{x - 26:g} {y} v-34 h52 v32"), *label(row, x, y - 54)]
    if row.source == "idle" and row.target == "canary":
        x, y, floor = source.center, source.y + TALL, BOTTOM + TALL + 26
        path = f"M{x:g} {y} V{floor} H{target.x - 24:g} V{target.y + TALL - 12} H{target.x - 2:g}"
        return [arrow(row, path), *label(row, x + 10, floor - 20, "start")]
    if source.y == target.y:
        y = source.y + TALL / 2
        path = f"M{source.x + source.width:g} {y:g} H{target.x - 2:g}"
        return [arrow(row, path), *label(row, (source.x + BOX + target.x) / 2, y - 46 + 13 * (not row.alias))]
    x, away = source.center + slot, 6 if side == "start" else -6
    if target.y < source.y:
        path, at = f"M{x:g} {source.y} V{target.y + TALL + 2}", target.y + TALL + 40
    else:
        path, at = f"M{x:g} {source.y + TALL} V{target.y - 2}", source.y + TALL + 44
    return [arrow(row, path), *label(row, x + away, at, side)]


def picture() -> str:
    """The whole picture, as SVG."""
    pairs: dict[tuple[str, str], list[Transition]] = defaultdict(list)
    for row in TABLE:
        pairs[row.source, row.target].append(row)
    arrows: list[str] = []
    for rows in pairs.values():
        for number, row in enumerate(rows):
            slot = SLOT * (number - (len(rows) - 1) / 2) + 17 * (row.target == "rolled_back")
            arrows += drawn(row, slot, "end" if number < len(rows) - 1 else "start")
    heads = [
        f'<marker id="head{color[1:]}" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L10 5L0 10z" fill="{color}"/></marker>'
        for color in dict.fromkeys(COLORS.values())
    ]
    begin = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [
        f'{begin} font-family="Helvetica, Arial, sans-serif">',
        f"<defs>{''.join(heads)}</defs>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *legend(),
        *(state(name, box) for name, box in PLACES.items()),
        *arrows,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def legend() -> list[str]:
    """What colours and signs mean."""
    words = [("tick", "stage=tick"), ("canary rule", "the canary's rule, in a tick"), ("stage=rollout", "a person")]
    lines, x = [], 24
    for mover, name in words:
        dash = ' stroke-dasharray="5 3"' if mover in DASHED else ""
        path = f'<path d="M{x} 20 h34" stroke="{COLORS[mover]}" stroke-width="1.6"{dash}/>'
        lines += [path, text(x + 42, 24, name, anchor="start")]
        x += 64 + 6 * len(name)
    notes = "! people are alerted    green: both versions answer    grey: the cycle is over, and the role is idle again"
    return [*lines, text(x + 20, 24, notes.replace("    ", "&#160;&#160;&#160;&#160;"), anchor="start")]


def table() -> str:
    """The table, as Markdown."""
    head = "| state | ledger entry | next state | who | when | alias | alert | rollout |"
    lines = [head, "|" + " --- |" * 8]
    for row in TABLE:
        entry = f"{row.preceded_by}, {row.event}" if row.preceded_by else row.event or ""
        mover = f"a person: `{row.mover}`" if row.mover in DASHED else row.mover
        alias = {None: "", SERVED: "champion"}.get(row.alias, row.alias)
        alert = "yes" if row.alert else ""
        cells = (row.source, entry, row.target, mover, row.when, alias, alert, row.rollout or "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(old: str) -> str:
    """A page with the present table between the markers."""
    before, _, rest = old.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Write, or check, picture and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    check = parser.parse_args().check
    pages = [path for path in PAGES if path.exists() and BEGIN in path.read_text("utf8")]
    wanted = {PICTURE: picture()} | {path: page(path.read_text("utf8")) for path in pages}
    stale = [path for path, made in wanted.items() if not path.exists() or path.read_text("utf8") != made]
    if not pages:
        print(f"no page in {DOCS} has the marker {BEGIN}: put it where the table should be")
        return 1
    for path in stale:
        if not check:
            path.write_text(wanted[path], "utf8")
        print(f"{path} {'is not up to date: run python scripts/cycle_diagram.py' if check else 'was written'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
