"""Reaching MLflow: one process at a time creates the database, and a dead server is told within seconds."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic
from loraloop.errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

WAIT = 300
"""Seconds to wait for another process that is registering or creating the database."""


@functools.cache
def connect(folder: Path, uri: str | None) -> MlflowClient:
    """A client for ``uri``, or for the database in ``folder``, which is made where it is missing."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    if uri is None:
        file = folder / "mlflow.db"
        with lock(folder / ".mlflow.lock"):
            if not file.exists():
                _create(file)
        uri = f"sqlite:///{file}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_registered_models(max_results=1)
    return client


def _create(file: Path) -> None:
    """Make the database beside its place: a crash within MLflow's hundreds of migrations leaves nothing behind."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells of every table that it makes
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".mlflow.") as scratch:
        beside = Path(scratch) / file.name
        store: Any = SqlAlchemyStore(f"sqlite:///{beside}", (file.parent / "artifacts").as_uri())  # type: ignore[no-untyped-call]
        store.engine.dispose()
        with atomic.write(file) as stream:
            stream.write(beside.read_bytes())


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock file; a thread that holds it may take it again.

    Raises:
        RegistryError: Another process has held it for too long.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path, timeout=WAIT, is_singleton=True)
    try:
        held.acquire()
    except Timeout as error:
        raise RegistryError(f"another process has held {path} for {WAIT} s; end it, then repeat") from error
    try:
        yield
    finally:
        held.release()


def reach(uri: str) -> None:
    """Ask an MLflow server for its health.

    Raises:
        ConfigError: It does not answer within 8 s.
    """
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        urlopen(f"{uri.rstrip('/')}/health", timeout=8).close()  # noqa: S310 (the caller passes http and https only)
    except (URLError, OSError) as error:
        raise ConfigError(
            f"registry.uri={uri} does not answer ({getattr(error, 'reason', error)}); start it with `mlflow server`, "
            "or use the local database with registry.uri=null"
        ) from error
