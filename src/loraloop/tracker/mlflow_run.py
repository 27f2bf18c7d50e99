"""One MLflow run: a queue of what is logged, artifacts that survive a failing backend, and a thread that sends."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from loraloop.core.passwords import mask
from loraloop.errors import TrackingError
from loraloop.tracker import environment
from loraloop.tracker.mlflow_format import PARAM_CHARACTERS, TAG_CHARACTERS, cut, digest, legal, split_orient
from loraloop.tracker.outbox import Entry, Outbox, now
from loraloop.tracker.recovery import send_aside
from loraloop.tracker.sender import Sender
from loraloop.tracker.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

SEND_SECONDS = 5.0
SHOWN = {"description": "mlflow.note.content"}
"""Tags that MLflow's pages show in a place of their own, by the names that workflows give them."""

_log = logging.getLogger(__name__)


class MlflowRun:
    """A run that is being logged.

    An error of the backend is warned of once and never raised. What the backend did not take is kept in ``unsent``, is
    tried again, and is removed from there once it is logged. What it refuses for good is dropped with a warning. A
    process that is killed loses the metrics of `SEND_SECONDS` at most.

    Args:
        client: Client of the run's backend.
        run_id: A run that exists and is RUNNING.
        link: Where a person sees the run.
        unsent: Folder of this run alone for what the backend does not take; made when needed.
        system_metrics: Also log processor, memory, disk and network, every `SEND_SECONDS` and once at the end.
        measured: Whether the run has metrics already.
        since: Milliseconds since 1970 of what the run holds already; nothing that is logged is older.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        link: str,
        unsent: Path,
        system_metrics: bool,
        measured: bool = False,
        since: int = 0,
    ) -> None:
        self._client = client
        self._id = run_id
        self._link = link
        self._unsent = unsent
        self._warned = False
        sender = Sender(client, run_id)
        self._outbox = Outbox(sender.send, unsent / "entries.jsonl", self._warn, sender.refuses)
        self._outbox.load(without="status")  # that of an earlier process: this one goes on with the run
        self._params: dict[str, str] = {}
        self._begun, self._measured, self._since = False, measured, since
        self._held: list[Entry] = []
        self._tables: list[dict[str, str]] = []
        self._system = SystemMetrics(run_id, client.tracking_uri) if system_metrics else None
        self._stopped = threading.Event()
        self._sender = threading.Thread(target=self._keep_sending, name=f"tracker-{run_id}", daemon=True)
        self._sender.start()

    @property
    def id(self) -> str | None:
        """MLflow's run id."""
        return self._id

    @property
    def link(self) -> str | None:
        """Address of the run's page in the MLflow UI."""
        return self._link

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, with masked passwords; values are cut at 6,000 characters, and the first of a key stays."""
        for key, value in values.items():
            name, text = legal(key), cut(mask(str(value)), PARAM_CHARACTERS)
            known = self._params.get(name)
            if known is None:
                self._params[name] = text
                self._outbox.put([Entry(kind="param", key=name, value=text, timestamp=self._now())])
            elif known != text:
                _log.warning("Parameter %s is logged as %s already; %s was not logged.", name, known, text)
        self._send_now()

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, with masked passwords; values are cut at 8,000 characters."""
        self._put_tags(values)
        self._send_now()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Queue metrics; they are sent every `SEND_SECONDS` and at the end."""
        held, self._held = self._held, []
        self._outbox.put([*self._metrics(values, step), *held])
        self._begun = True

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file, or what is in a folder, under ``folder``.

        Raises:
            TrackingError: There is nothing at ``path``.
        """
        if not path.exists():
            raise TrackingError(f"{path} cannot be kept as an artifact, because it does not exist")
        if self._outbox.failing or self._aside.exists():
            self._put_aside(path, folder)
            return
        try:
            self._upload(path, folder)
        except Exception as error:
            self._warn(f"kept in {self._unsent}", error)
            self._put_aside(path, folder)

    def text(self, text: str, name: str) -> None:
        """Keep a text, with masked passwords, as the artifact ``name``."""
        self._written(name, lambda file: file.write_text(mask(text), encoding="utf-8"))

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Keep a table as the artifact ``name`` (``.json``), which the UI's table view shows beside other runs'."""
        name = name if name.endswith(".json") else f"{name}.json"
        self.text(split_orient(rows), name)
        entry = {"path": name, "type": "table"}
        if entry not in self._tables:
            self._tables.append(entry)
            self.tags({"mlflow.loggedArtifacts": json.dumps(self._tables)})

    def figure(self, figure: Any, name: str) -> None:
        """Keep a matplotlib figure as the artifact ``name`` (``.png``)."""
        name = name if name.endswith(".png") else f"{name}.png"
        self._written(name, lambda file: figure.savefig(file, format="png", dpi=150, bbox_inches="tight"))

    def dataset(self, name: str, fingerprint: str, rows: int, context: str) -> None:
        """Log a dataset as an input of the run, or as a tag while the backend fails."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"fingerprint": fingerprint})
        profile = json.dumps({"num_rows": rows})
        dataset = Dataset(name, digest(fingerprint, context), "local", source, profile=profile)
        try:
            self._client.log_inputs(self._id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
        except Exception as error:
            self._warn(f"kept in {self._unsent}", error)
            self._put_tags({f"dataset.{context}": f"{name} {fingerprint}, {rows} rows"})

    def close(self, status: str) -> None:
        """Send everything that is left and mark the run as ended with ``status``."""
        self._stopped.set()
        self._sender.join()
        if self._begun or not self._measured:  # else a run that had ended is only given a tag, say
            self._sample()
            self.metrics({})  # what was held
        self._put_tags(environment.accelerators())  # torch may be loaded only now
        self._outbox.put([Entry(kind="status", key="status", value=status, timestamp=self._now())])
        if self._outbox.flush() and send_aside(self._client, self._id, self._unsent):
            shutil.rmtree(self._unsent, ignore_errors=True)

    def _put_tags(self, values: Mapping[str, str]) -> None:
        now = self._now()
        self._outbox.put(
            [
                Entry(
                    kind="tag",
                    key=SHOWN.get(key, legal(key)),
                    value=cut(mask(str(value)), TAG_CHARACTERS),
                    timestamp=now,
                )
                for key, value in values.items()
            ]
        )

    def _metrics(self, values: Mapping[str, float], step: int) -> list[Entry]:
        now = self._now()
        return [Entry(kind="metric", key=legal(k), value=float(v), timestamp=now, step=step) for k, v in values.items()]

    def _now(self) -> int:
        return now(self._since)

    def _send_now(self) -> None:
        if not self._outbox.failing:  # else the thread tries, so that a backend that hangs holds up nobody
            self._outbox.flush()

    def _keep_sending(self) -> None:
        while not self._stopped.wait(SEND_SECONDS):
            self._sample()
            self._outbox.flush()

    def _sample(self) -> None:
        if self._system is None:
            return
        entries = self._metrics(*self._system.sample())
        if self._begun:
            self._outbox.put(entries)
        else:  # a comparison opens on the metric that was logged first
            self._held += entries

    @property
    def _aside(self) -> Path:
        return self._unsent / "artifacts"

    def _written(self, name: str, write: Callable[[Path], object]) -> None:
        target = PurePosixPath(name)
        try:
            with tempfile.TemporaryDirectory(prefix="loraloop-") as scratch:
                file = Path(scratch) / target.name
                write(file)
                self.artifact(file, "" if target.parent == PurePosixPath() else str(target.parent))
        except OSError as error:
            _log.warning("Artifact %s is lost: %s", name, error)

    def _upload(self, path: Path, folder: str) -> None:
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(self._id, str(path), folder or None)

    def _put_aside(self, path: Path, folder: str) -> None:
        target = self._aside / folder
        try:
            target.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            else:
                shutil.copy2(path, target)
        except OSError as error:
            _log.warning("Artifact %s is not logged and stays where it is: %s", path, error)

    def _warn(self, where: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "Tracking fails, and is tried again to the end; what is not logged is %s. %s", where, mask(str(error))
            )
