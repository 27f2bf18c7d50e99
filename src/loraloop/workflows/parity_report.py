"""What a comparison of an export says: the table, the line, and the refusal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ArtefactError

if TYPE_CHECKING:
    from loraloop.records import Compared, Parity, Version

WIDEST, ENOUGH = ("float32", "f32"), 8
USUAL, FOUR_BITS = 0.98, 0.9
"""Shares of equal answers that are asked for, the second one where weights are of 4 bits."""


def report(made: Parity, version: Version, where: Path | str) -> None:
    """Print the comparison, and the first differing token of some rows."""
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    near = made.logits
    facts = {
        "export": f"{made.form} in {made.dtype}, {where}, {console.size(made.bytes)}",
        "runtime": versions,
        "agreement": summary(made),
        **({"why 0.9": "4-bit weights round more"} if made.min_agreement == FOUR_BITS else {}),
        **{name.replace("_", " "): _beside(each) for name, each in made.scores.items()},
        **({"likeliest": f"{near.shared} of {near.tokens} tokens, logits {near.off} off"} if near else {}),
        "speed": f"loaded in {made.load_seconds:.1f} s, {made.tokens_per_second:.1f} tokens/s",
    }
    console.facts(f"{version.name} version {version.number}", facts)
    if made.differences:
        rows = [[_short(d.prompt), str(d.token), repr(d.export), repr(d.recorded)] for d in made.differences]
        console.table("first differing token", ["prompt", "token", "export", "recorded"], rows, numbers=False)


def require(made: Parity, folder: Path | str, key: str) -> None:
    """Refuse an export that answers differently.

    Args:
        made: The comparison.
        folder: What is refused, or what became of it.
        key: By which less is accepted.

    Raises:
        ArtefactError: Too few answers are equal.
    """
    if not made.passed:
        what = f"{folder}: do not use it" if isinstance(folder, Path) else folder
        raise ArtefactError(
            f"the export answers differently from its adapter: {summary(made)}; {what}. {_way_out(made, key)}"
        )


def _way_out(made: Parity, key: str) -> str:
    if made.agreement == 0 and made.rows >= ENOUGH:
        return "No answer is equal, which rounding does not explain: the export is of something else, or was altered"
    if made.dtype in WIDEST:
        return f"Accept less with {key}=SHARE{_few(made, key)}"
    return f"Export it in a wider publish.dtype, or accept less with {key}=SHARE{_few(made, key)}"


def _few(made: Parity, key: str) -> str:
    """What to know where one row more or less decides."""
    others = round(made.rows * (1 - made.agreement))
    if others != 1 or made.min_agreement >= 1 or made.rows * (1 - made.min_agreement) >= 1 - 1e-9:
        return ""
    enough = math.ceil(1 / (1 - made.min_agreement) - 1e-9)
    return (
        f". On fewer than {enough} rows a single other answer refuses: compare more, with "
        f"{key.replace('min_agreement', 'rows')}, and with a larger evaluation.max_rows where the adapter is measured"
    )


def summary(made: Parity) -> str:
    """What came out, in a line."""
    same = round(made.agreement * made.rows)
    return (
        f"{'passed' if made.passed else 'refused'}: {same} of {made.rows} greedy answers equal through {made.runtime} "
        f"({made.agreement:.3f}, at least {made.min_agreement:g} asked)"
    )


def _beside(each: Compared) -> str:
    return f"{each.value:.4f}{_error(each.error)}, recorded {each.recorded:.4f}{_error(each.recorded_error)}"


def _error(value: float | None) -> str:
    return "" if value is None else f" ± {value:.4f}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"...{line[-37:]}"
