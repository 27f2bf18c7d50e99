"""What each run of a multirun leaves in its folder, and which of them is the best."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import atomic, paired
from loraloop.core.metrics import direction
from loraloop.errors import DataError
from loraloop.workflows import promotion

if TYPE_CHECKING:
    from loraloop.protocols import Tracker
    from loraloop.workflows.promotion import Candidate

RESULT = "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A run that ended.

    Attributes:
        run: Its id; ``None`` if it was not tracked.
        model: The registered model that its adapter belongs to.
        objective: By which runs are compared.
        value: Of the objective.
        overrides: Those of its job.
        champion: Weights of the champion whose score lies beside the adapter's; ``None`` for none.
    """

    run: str | None
    model: str
    objective: str
    value: float
    overrides: tuple[str, ...]
    champion: str | None


def write(result: Result, folder: Path) -> None:
    """Write ``result.json`` into the job's folder, last of all: what has one is whole."""
    with atomic.write(folder / RESULT) as stream:
        stream.write(json.dumps(asdict(result)).encode())


def read(multirun: Path) -> dict[Path, Result]:
    """The runs of a multirun that ended, by their folders, in the order of their jobs."""
    files = sorted(multirun.rglob(RESULT), key=lambda file: (len(file.parent.name), str(file)))
    found = {}
    for file in files:
        try:
            values = json.loads(file.read_bytes())
            found[file.parent] = Result(**values | {"overrides": tuple(values["overrides"])})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no result of a run of a multirun: {error}") from error
    return found


def ranked(results: dict[Path, Result]) -> list[Path]:
    """Folders of the runs, the best first; a value that is no number is the worst."""

    def key(folder: Path) -> float:
        result = results[folder]
        worse = math.inf if math.isnan(result.value) else result.value
        return -worse if direction(result.objective) == "maximize" and math.isfinite(worse) else worse

    return sorted(results, key=key)


def candidate(folder: Path, result: Result, tracker: Tracker) -> Candidate:
    """The adapter of a run, from its job's folder."""
    return promotion.of_folder(folder, result.run, tracker, result.champion)


def comparable(candidates: Sequence[Candidate]) -> bool:
    """Whether all were measured on the same held-out rows."""
    first, *others = (each.score for each in candidates)
    return all(paired.same_rows(first, other) is not None for other in others)


def whole(folder: Path) -> bool:
    """Whether a job's folder on this machine holds a measured adapter."""
    return all((folder / name).is_file() for name in ("adapter/manifest.json", "evaluation/adapter/score.json"))
