"""Reaching MLflow: its local database, or a server that answers within seconds."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import mlflow_database
from loraloop.errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient


@functools.cache
def connect(folder: Path, uri: str | None) -> MlflowClient:
    """A client for ``uri``, or for the database in ``folder``, which is made where it is missing."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    if uri is None:
        mlflow_database.make(folder, "Default", RegistryError)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_registered_models(max_results=1)
    return client


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
