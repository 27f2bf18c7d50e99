"""MLflow: runs in a local database or on a server."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import Field, model_validator

from loraloop.core import imports, mlflow_database
from loraloop.core.part import part
from loraloop.core.passwords import mask, without_user
from loraloop.core.patience import within
from loraloop.errors import PrunedError, TrackingError
from loraloop.tracker import environment, recovery
from loraloop.tracker.mlflow_database import Database, first_line
from loraloop.tracker.mlflow_run import SHOWN, MlflowRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities import Run as Stored

REACH_SECONDS = 9.0
LISTED_RUNS = 5
UI_ADDRESS = "http://127.0.0.1:5000"

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the outbox tries again, and holds up nobody meanwhile
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print the server's with its password
}
"""Environment variables of MLflow, unless the person set them; its own retries last for minutes."""

OURS = {theirs: ours for ours, theirs in SHOWN.items()}

T = TypeVar("T")

_log = logging.getLogger(__name__)


def _configure() -> None:
    """Set MLflow's environment, which it reads in part when it is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    mlflow_database.silence()


@part
class Mlflow:
    """Logs runs to MLflow.

    Attributes:
        folder: Local folder with ``mlflow.db`` and ``artifacts/``, ``unsent/`` for what a failing backend did not
            take, and ``open/`` with a lock file of each run in progress; relative to the working directory.
        uri: ``None`` for the database in ``folder``, or the address of a server.
        experiment: Created when missing.
        run_name: Name of a run without a parent, instead of the stage's.
        system_metrics: Also log processor, memory, disk and network.
    """

    folder: str = "mlruns"
    uri: str | None = None
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "loraloop"
    run_name: str | None = None
    system_metrics: bool = True

    @model_validator(mode="after")
    def _known_address(self) -> Mlflow:
        if self.uri is not None and not re.match(r"https?://[^/]", self.uri):
            raise ValueError(
                f"uri must be null or a server's http:// or https:// address, not {mask(self.uri)!r}: "
                "for a local database leave it null and set folder"
            )
        return self

    @property
    def tracking_uri(self) -> str:
        """What MLflow's clients and commands call this backend."""
        return self._database.uri if self.uri is None else self.uri.rstrip("/")

    @property
    def ui_command(self) -> str | None:
        """The line that opens the UI, for a local database; a server has its address for that."""
        if self.uri is not None:
            return None
        program = "mlflow" if shutil.which("mlflow") else shlex.quote(str(Path(sys.executable).with_name("mlflow")))
        # by default four workers start, each with seconds of imports
        return f"{program} ui --workers 1 --backend-store-uri {shlex.quote(self.tracking_uri)}"

    def check(self) -> None:
        """Reach the backend once; a missing database is not created yet.

        Raises:
            TrackingError: It does not answer within 10 s, or it is not one that the installed MLflow can use.
        """
        _configure()
        self._name_other_address()
        if self.uri is None:
            self._database.check()
        else:
            client = self._client()
            self._reach(lambda: client.get_experiment_by_name(self.experiment))

    @contextmanager
    def start(self, name: str, parent: str | None = None, resume: str | None = None) -> Iterator[MlflowRun]:
        """Open a run, nested under the run ``parent``, or go on with the run ``resume``.

        MLflow's global active run is left alone. Runs that a dead process left in ``folder`` are ended before.

        Raises:
            TrackingError: The run cannot be created, or there is none to go on with.
        """
        with imports.quick():
            client, experiment = self._open()
        recovery.recover(client, self._database.folder)
        stored = self._reopened(client, resume) if resume else self._created(client, experiment, name, parent)
        with recovery.held(self._database.folder, stored.info.run_id), _ended(self._run(client, stored)) as run:
            yield run

    def artifacts(self, run: str) -> Path:
        """Local folder with an earlier run's artifacts; a server's are downloaded into ``folder/downloads``.

        Raises:
            TrackingError: There is no such run, or it kept no artifacts.
        """
        client = self._existing()
        stored = self._find(client, run)
        identity = stored.info.run_id
        target = None
        if not stored.info.artifact_uri.startswith("file:"):
            download = Path(self.folder).absolute() / "downloads" / identity
            download.mkdir(parents=True, exist_ok=True)
            target = str(download)
        try:
            if client.list_artifacts(identity):
                return Path(client.download_artifacts(identity, "", target))
        except Exception as error:
            raise TrackingError(f"the artifacts of run {run} cannot be read: {mask(first_line(error))}") from error
        raise TrackingError(f"run {run} kept no artifacts: its status is {stored.info.status}")

    def read(self, run: str) -> Mapping[str, Any]:
        """An earlier run: ``id``, ``name``, ``status``, ``params``, the last ``metrics``, ``tags`` and ``link``.

        Raises:
            TrackingError: There is no such run; the message lists the latest.
        """
        stored = self._find(self._existing(), run)
        return {
            "id": stored.info.run_id,
            "name": stored.info.run_name,
            "status": stored.info.status,
            "params": dict(stored.data.params),
            "metrics": dict(stored.data.metrics),
            "tags": {OURS.get(key, key): value for key, value in stored.data.tags.items()},
            "link": self._link(stored),
        }

    def _name_other_address(self) -> None:
        other = os.environ.get("MLFLOW_TRACKING_URI")
        if self.uri is None and other and other != self.tracking_uri:
            _log.warning(
                "MLFLOW_TRACKING_URI=%s is not used: runs are logged to %s. To use it, add %s",
                mask(other),
                self.tracking_uri,
                "'tracker.uri=${oc.env:MLFLOW_TRACKING_URI}'; to be rid of this line, unset it",
            )

    @property
    def _database(self) -> Database:
        return Database(Path(self.folder))

    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(self.tracking_uri)

    def _existing(self) -> MlflowClient:
        _configure()
        if self.uri is None:
            if not self._database.exists():
                raise TrackingError(f"there is no {self._database.file}: nothing has been tracked in this folder yet")
            self._database.verify()
        return self._client()

    def _open(self) -> tuple[MlflowClient, Experiment]:
        _configure()
        if self.uri is None:
            self._database.prepare(self.experiment)  # before a client, which would create it unguarded
        client = self._client()
        experiment = self._reach(lambda: client.get_experiment_by_name(self.experiment))
        if experiment is None:
            experiment = self._create_experiment(client)
        if experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {self.experiment} was deleted: restore it with `mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}` or choose another (tracker.experiment=...)"
            )
        return client, experiment

    def _create_experiment(self, client: MlflowClient) -> Experiment:
        from mlflow.exceptions import MlflowException

        location = self._database.artifacts.as_uri() if self.uri is None else None

        def create() -> Experiment:
            try:
                client.create_experiment(self.experiment, artifact_location=location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was first
                    raise
            return cast("Experiment", client.get_experiment_by_name(self.experiment))

        return self._ask(create)

    def _created(self, client: MlflowClient, experiment: Experiment, name: str, parent: str | None) -> Stored:
        tags = environment.tags(Path.cwd())
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        title = name if parent or not self.run_name else self.run_name
        return self._ask(lambda: client.create_run(experiment.experiment_id, tags=tags, run_name=title))

    def _reopened(self, client: MlflowClient, run: str) -> Stored:
        stored = self._find(client, run)
        self._ask(lambda: client.update_run(stored.info.run_id, status="RUNNING"))
        return stored

    def _run(self, client: MlflowClient, created: Stored) -> MlflowRun:
        identity, info = created.info.run_id, created.info
        return MlflowRun(
            client,
            identity,
            self._link(created),
            recovery.unsent(self._database.folder, identity),
            self.system_metrics,
            measured=bool(created.data.metrics),
            since=max(info.start_time, (info.end_time or 0) + 1),
        )

    def _link(self, stored: Stored) -> str:
        site = UI_ADDRESS if self.uri is None else without_user(self.tracking_uri)
        return f"{site}/#/experiments/{stored.info.experiment_id}/runs/{stored.info.run_id}"

    def _find(self, client: MlflowClient, run: str) -> Stored:
        found = self._ask(lambda: self._search(client, run))
        if len(found) == 1 and found[0].info.lifecycle_stage != "active":
            raise TrackingError(f"run {run} was deleted: restore it with `mlflow runs restore --run-id {run}`")
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(stored.info.run_id for stored in found)
            raise TrackingError(f"several runs are named {run!r}: give the id of one ({listed})")
        latest = self._ask(lambda: self._search(client, None))
        listed = ", ".join(f"{s.info.run_name} ({s.info.run_id}, {s.info.status})" for s in latest) or "none yet"
        raise TrackingError(
            f"there is no run {run!r} in experiment {self.experiment} at {mask(self.tracking_uri)}; "
            f"the latest: {listed}"
        )

    def _search(self, client: MlflowClient, run: str | None) -> list[Stored]:
        from mlflow.exceptions import MlflowException

        if run is not None and re.fullmatch(r"[0-9a-f]{32}", run):
            try:
                return [client.get_run(run)]
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return []
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return []
        if run is None:
            return list(client.search_runs([experiment.experiment_id], max_results=LISTED_RUNS))
        quote = "'" if '"' in run else '"'
        wanted = f"attributes.run_name = {quote}{run}{quote}"
        return list(client.search_runs([experiment.experiment_id], wanted, max_results=LISTED_RUNS))

    def _reach(self, call: Callable[[], T]) -> T:
        """The first call to a server, bounded: a timeout of HTTP covers neither a name look-up nor a slow drip."""
        if self.uri is None:
            return self._ask(call)
        try:
            return within(REACH_SECONDS, lambda: self._ask(call))
        except TimeoutError:
            raise self._unusable(f"no answer within {REACH_SECONDS:.0f} s") from None

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise self._unusable(first_line(error)) from error

    def _unusable(self, cause: str) -> TrackingError:
        return TrackingError(
            f"MLflow at {mask(self.tracking_uri)} cannot be used ({mask(cause)}): start or repair it, "
            "set another tracker.uri or tracker.folder, or use tracker=none"
        )


@contextmanager
def _ended(run: MlflowRun) -> Iterator[MlflowRun]:
    """The run, which is closed with the status that the end of the block has."""
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except PrunedError as pruned:  # MLflow knows no such status; FAILED would say that something went wrong
        status = "KILLED"
        run.tags({"pruned": str(pruned)})
        raise
    except BaseException as error:
        run.tags({"error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        run.close(status)
