"""Runs whose process died: the next start of a run sends what they had not sent, and ends them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core.locks import file_lock
from loraloop.tracker.outbox import Entry, Outbox, now
from loraloop.tracker.sender import Sender, is_refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo

DIED = "its process died before it could end the run"

_log = logging.getLogger(__name__)


def unsent(folder: Path, run_id: str) -> Path:
    """Folder of what a run's backend did not take."""
    return folder / "unsent" / run_id


@contextmanager
def held(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the run's lock file while the block logs to it: as long as it is held, the process lives."""
    file = _lock(folder, run_id)
    with file_lock(file, 0) as free:
        try:
            yield
        finally:
            if free:
                file.unlink(missing_ok=True)


def recover(client: MlflowClient, folder: Path) -> None:
    """Send what dead processes left in ``folder``, and end their runs as KILLED or as they had said themselves.

    A run that this backend does not know, or that was deleted, is left as it is. So is one that lives: its process
    holds its lock file.
    """
    locks = {file.stem for file in (folder / "open").glob("*.lock")}
    for run_id in sorted(locks | {path.name for path in (folder / "unsent").glob("*")}):
        with file_lock(_lock(folder, run_id), 0) as dead:
            try:
                if dead and _end(client, folder, run_id):
                    _lock(folder, run_id).unlink(missing_ok=True)
            except OSError as error:  # one run's files must not keep others from training
                _warn(f"kept in {unsent(folder, run_id)}", error)


def _lock(folder: Path, run_id: str) -> Path:
    return folder / "open" / f"{run_id}.lock"


def _end(client: MlflowClient, folder: Path, run_id: str) -> bool:
    """End a run; whether nothing of it is left to be done."""
    info = _info(client, run_id)
    if info is None:
        return False
    place = unsent(folder, run_id)
    sender = Sender(client, run_id)
    outbox = Outbox(sender.send, place / "entries.jsonl", _warn, sender.refuses)
    left = outbox.load()
    if info.status == "RUNNING" and all(entry.kind != "status" for entry in left):
        ended = now(info.start_time)
        outbox.put([Entry(kind="tag", key="error", value=DIED, timestamp=ended)])
        outbox.put([Entry(kind="status", key="status", value="KILLED", timestamp=ended)])
        _log.warning("Run %s (%s) is ended as KILLED: %s.", info.run_name, run_id, DIED)
    if not outbox.flush() or not send_aside(client, run_id, place):
        return False
    if left:
        _log.warning("Run %s (%s): %d entries that had not been sent are logged.", info.run_name, run_id, len(left))
    shutil.rmtree(place, ignore_errors=True)
    return True


def _info(client: MlflowClient, run_id: str) -> RunInfo | None:
    try:
        info = client.get_run(run_id).info
    except Exception as error:
        if not is_refusal(error):
            _warn(f"of run {run_id} waits", error)
        return None
    return info if info.lifecycle_stage == "active" else None


def send_aside(client: MlflowClient, run_id: str, place: Path) -> bool:
    """Log the artifacts that were put aside in ``place``; whether none is left."""
    aside = place / "artifacts"
    try:
        if aside.exists():
            client.log_artifacts(run_id, str(aside))
    except Exception as error:
        _warn(f"kept in {aside}", error)
        return False
    return True


def _warn(where: str, error: Exception) -> None:
    _log.warning("What an earlier run had not sent cannot be sent now, and is %s. %s", where, error)
