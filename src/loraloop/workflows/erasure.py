"""Erasing sessions wherever loraloop keeps them, and naming what holds them and stays: exports and versions."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import tables
from loraloop.core.passwords import mask
from loraloop.core.suggest import nearest
from loraloop.errors import DataError, LoraloopError, RegistryError
from loraloop.tracing import queue
from loraloop.workflows import continuation

if TYPE_CHECKING:
    from loraloop.feedback.erasure import Counted
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Store
    from loraloop.protocols import Ocr, Tracker
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.tracing.settings import Tracing

_log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".parquet", ".toon"})
SESSION = "session.json"
COLUMN = "session_id"
DATASET = "dataset"
"""Folder of a run's artifacts with the rows that it was trained on."""
VERSION = "models:/"


@dataclass(frozen=True, slots=True)
class Trained:
    """The versions that sessions are part of.

    Attributes:
        versions: Trained or measured on some of them, as ``name@number``.
        unknown: Those whose rows cannot be read, and why.
    """

    versions: tuple[str, ...]
    unknown: tuple[tuple[str, str], ...]


def nothing(store: Store, chosen: Mapping[str, str]) -> str:
    """That no session is of what was chosen, and what there is of its kind."""
    from loraloop.feedback.erasure import near

    lines = [f"There is nothing of {' and '.join(f'{name}={value}' for name, value in chosen.items())} to erase in "]
    lines[0] += f"{store.database.name}."
    for name, value in chosen.items():
        there, count = near(store, name, value)
        more = f" and {count - len(there)} more" if count > len(there) else ""
        lines.append(
            f"  {name}: there {'is' if count == 1 else 'are'} {', '.join(there) or 'none'}{more}{nearest(value, there)}"
        )
    return "\n".join(lines)


def exports(places: Iterable[Path], ids: Collection[str]) -> dict[Path, int]:
    """The files at or below ``places`` that hold rows of these sessions, each with how many of them.

    Rows say by the column ``session_id`` which session they are of; a ``session.json`` is of the one that its folder
    is named by.
    """
    found = {}
    for file in sorted({each.absolute() for place in places for each in _files(place)}) if ids else ():
        held = {file.parent.name} if file.name == SESSION else set(_sessions(file))
        if count := len(held & set(ids)):
            found[file] = count
    return found


def trained(registry: MlflowRegistry, tracker: Tracker, ids: Collection[str]) -> Trained:
    """The versions of the registry whose runs logged rows of these sessions, and those that went on with one of them.

    Raises:
        RegistryError: The registry cannot be asked.
    """
    versions: set[str] = set()
    starts, unknown = {}, []
    for model, number, run in registry.runs() if ids else ():
        name = f"{model}@{number}"
        try:
            if not run:
                raise DataError("it came from a folder, and nothing says what it was trained on")
            rows = tracker.artifacts(run) / DATASET
            if not rows.is_dir():
                raise DataError(f"its run {run} kept no rows")
            start = tracker.read(run)["params"].get(continuation.PARAM, "")
            if start and not start.startswith(VERSION):
                raise DataError(f"it went on with an adapter of {start}, which is not registered")
            starts[name] = start.removeprefix(VERSION).replace("/", "@")
        except LoraloopError as error:
            unknown.append((name, str(error)))
            continue
        if exports([rows], ids):
            versions.add(name)
    while more := {name for name, start in starts.items() if start in versions} - versions:
        versions |= more
    return Trained(tuple(sorted(versions)), tuple(unknown))


def named(places: Iterable[Path], ids: Collection[str], registry: MlflowRegistry, tracker: Tracker) -> dict[str, str]:
    """What holds the sessions and stays, in words: exports, versions, and versions of which that is not known."""
    held = "; ".join(f"{file} ({count} sessions)" for file, count in exports(places, ids).items())
    facts = {"exports": held or "none"}
    try:
        made = trained(registry, tracker, ids)
    except RegistryError as error:
        return facts | {"trained on them": f"not known: {error}"}
    unknown = {"not known": "; ".join(f"{name}: {why}" for name, why in made.unknown)} if made.unknown else {}
    return facts | {"trained on them": ", ".join(made.versions) or "no version"} | unknown


def traced(tracing: Tracing, store: Store, ids: Sequence[str]) -> dict[str, str]:
    """The traces of these sessions, which stay where they were sent to, in words.

    MLflow is asked by the ids of the traces, which follow from those of the sessions: also after these were erased.
    """
    sent = queue.sent(store.database, ids)
    told = {"traces sent": _listed(sent)} if sent else {}
    if not tracing.mlflow:
        return told | {"traces in MLflow": "not looked for: give tracing.mlflow=true"}
    try:
        found = tracing.mlflow_traces().holding(ids)
    except Exception as error:  # MLflow's, SQLAlchemy's or the network's
        return told | {"traces in MLflow": f"not known: {mask(str(error).partition(chr(10))[0])}"}
    return told | {"traces in MLflow": _first(found) or "none"}


def summary(counted: Counted, pages: int) -> str:
    """What is or would be erased, in words."""
    return f"{counted}, {pages} cached pages"


def erase(store: Store, ids: Sequence[str], ocr: Ocr) -> tuple[Counted, int]:
    """Erase sessions, and the text of their images from the cache of read pages.

    The cache comes first: it is found by the sessions' texts, so that after a crash the next call finds what is left.

    Returns:
        What was erased of the database, and how many cached pages.

    Raises:
        StoreError: The database cannot be used; the next call goes on.
    """
    from loraloop.feedback import erasure

    pages = cached(store, ids, ocr)
    for file in pages:
        file.unlink(missing_ok=True)
    return erasure.erase(store, ids), len(pages)


def expected(store: Store, ids: Sequence[str], ocr: Ocr) -> tuple[Counted, int]:
    """What :func:`erase` would erase."""
    from loraloop.feedback import erasure

    return erasure.count(store, ids), len(cached(store, ids, ocr))


def cached(store: Store, ids: Sequence[str], ocr: Ocr) -> list[Path]:
    """The cached pages whose text stands in these sessions."""
    from loraloop.feedback import erasure
    from loraloop.ocr.cache import Cache

    folder = getattr(getattr(ocr, "reader", ocr), "cache", None)
    return Cache(folder).holding(erasure.texts(store, ids)) if ids else []


def expire(feedback: Feedback, store: Store, ocr: Ocr) -> None:
    """Erase what is older than ``feedback.keep_days``, if that is set, and print what was erased and who holds it.

    Raises:
        StoreError: The database cannot be used; the next call goes on.
    """
    from loraloop.feedback import erasure

    if feedback.keep_days is None:
        return
    ids = erasure.older_than(feedback.keep_days).ids(store)
    if not ids:
        return
    held, sent = exports([feedback.folder], ids), queue.sent(store.database, ids)
    counted, pages = erase(store, ids, ocr)
    print(f"older than feedback.keep_days={feedback.keep_days:g}: erased {summary(counted, pages)}", flush=True)
    if held:
        print(f"they are training data still in {_first(held)}; versions: loraloop stage=forget", flush=True)
    if sent:
        print(f"their traces stay: {_listed(sent)}", flush=True)


def _listed(sent: Mapping[str, int]) -> str:
    return ", ".join(f"{count} to {place}" for place, count in sent.items())


def _first(names: Collection[Any], most: int = 3) -> str:
    told = ", ".join(str(each) for each in list(names)[:most])
    return f"{told} and {len(names) - most} more" if len(names) > most else told


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif place.is_dir():
        yield from (each for each in place.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())


def _sessions(file: Path) -> Iterator[str]:
    """The ids in a file's column; a file that holds no rows has none."""

    def broken(line: int, reason: str) -> None:
        _log.debug("%s:%d: %s", file, line, reason)

    with suppress(DataError, OSError):
        for row in tables.read(file, broken):
            value: Any = row.get(COLUMN)
            if value:
                yield str(value)
