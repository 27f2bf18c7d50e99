"""Scores and measurements as files: ``score.json`` beside ``generations.jsonl``, and the cache of base measurements."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loraloop.core import atomic
from loraloop.core.hashing import sha256_json
from loraloop.core.metrics import Measurement
from loraloop.errors import DataError
from loraloop.records import Base, Generation, Row, Score

log = logging.getLogger(__name__)

SLICES, ERRORS = "slices", "standard_errors"
FORMAT = 1
"""Raised when encoding or decoding of rows changes, so that older cached measurements are not used."""


def _plain(value: float) -> float | str:
    # JSON has no infinity and no NaN; float() reads these strings back.
    return value if math.isfinite(value) else str(value)


def to_dict(score: Score) -> dict[str, Any]:
    """The score without its generations, JSON-ready."""
    slices = {task: to_dict(each) for task, each in score.slices.items()}
    return {
        "rows": score.rows,
        **{name: _plain(value) for name, value in score.values.items()},
        ERRORS: {name: _plain(value) for name, value in score.errors.items()},
        **({SLICES: slices} if slices else {}),
    }


def from_dict(data: Mapping[str, Any], generations: Sequence[Generation] = ()) -> Score:
    """Inverse of :func:`to_dict`; a score of an earlier version, which had no standard errors, is read as well."""
    rest = dict(data)
    slices = {task: from_dict(each) for task, each in rest.pop(SLICES, {}).items()}
    errors = {name: float(value) for name, value in rest.pop(ERRORS, {}).items()}
    rows = int(rest.pop("rows"))
    values = {name: float(value) for name, value in rest.items()}
    return Score(rows=rows, values=values, errors=errors, slices=slices, generations=tuple(generations))


def write(score: Score, folder: Path) -> None:
    """Write ``score.json`` and, one line per row, ``generations.jsonl`` into ``folder``."""
    with atomic.write(folder / "generations.jsonl") as stream:
        for each in score.generations:
            stream.write(json.dumps(asdict(each), ensure_ascii=False).encode() + b"\n")
    with atomic.write(folder / "score.json") as stream:
        stream.write(json.dumps(to_dict(score), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def read(folder: Path) -> Score:
    """Read what :func:`write` wrote.

    Raises:
        DataError: A file is missing or not in that form.
    """
    try:
        with (folder / "generations.jsonl").open(encoding="utf-8") as lines:
            generations = [Generation(**json.loads(line)) for line in lines]
        return from_dict(json.loads((folder / "score.json").read_text(encoding="utf-8")), generations)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{folder} holds no readable score (score.json and generations.jsonl are written by an evaluation): {error}"
        ) from error


def key(base: Base, rows: Sequence[Row], max_new_tokens: int) -> str:
    """SHA-256 of everything that a base's measurement depends on; batching is not part of it."""
    texts = [(row.prompt, row.completion, row.rejected) for row in rows]
    parts = {"format": FORMAT, "base": asdict(base), "rows": texts, "max_new_tokens": max_new_tokens}
    return sha256_json(parts)


def _checked(data: Mapping[str, Any], rows: int) -> Measurement:
    measured = Measurement(
        nll=tuple(float(value) for value in data["nll"]),
        tokens=tuple(int(value) for value in data["tokens"]),
        answers=tuple(data["answers"]),
        rejected_nll=tuple(None if value is None else float(value) for value in data["rejected_nll"]),
    )
    lengths = [len(values) for values in asdict(measured).values()]
    if lengths != [rows] * 4 or not all(isinstance(answer, str) for answer in measured.answers):
        raise ValueError(f"{lengths} entries for {rows} rows")
    return measured


def recall(path: Path, rows: int) -> Measurement | None:
    """A cached measurement, or ``None`` if there is none; a damaged file is warned about and counts as none."""
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")), rows)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("the cached base score %s is damaged (%s): the base is measured again", path, error)
        return None


def keep(path: Path, measured: Measurement) -> None:
    """Cache a measurement."""
    values = asdict(measured)
    for name in ("nll", "rejected_nll"):
        values[name] = [None if value is None else _plain(value) for value in values[name]]
    with atomic.write(path) as stream:
        stream.write(json.dumps(values, ensure_ascii=False, allow_nan=False).encode())
