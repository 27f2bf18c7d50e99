"""Sending entries to one run of MLflow, and telling what MLflow will never take from what it may take later."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.tracker.outbox import Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient

REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}
"""Error codes of MLflow with which the same entry would come back each time."""

_log = logging.getLogger(__name__)


class Sender:
    """Sends batches of entries to the run ``run_id``; once the run is found to be deleted, it drops them."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._id = run_id
        self._deleted = False

    def send(self, batch: Sequence[Entry]) -> None:
        """Log metrics, parameters and tags, then the status if it is among them; raises MLflow's errors."""
        from mlflow.entities import Metric, Param, RunTag

        if self._deleted:
            return
        self._client.log_batch(
            self._id,
            metrics=[Metric(e.key, float(e.value), e.timestamp, e.step) for e in batch if e.kind == "metric"],
            params=[Param(e.key, str(e.value)) for e in batch if e.kind == "param"],
            tags=[RunTag(e.key, str(e.value)) for e in batch if e.kind == "tag"],
        )
        for entry in batch:
            if entry.kind == "status":
                self._client.set_terminated(self._id, str(entry.value), entry.timestamp)

    def refuses(self, error: Exception) -> bool:
        """Whether what raised ``error`` would be refused again however often it is sent."""
        if not is_refusal(error):
            return False
        if not is_active(self._client, self._id):
            self._deleted = True
            _log.warning("Run %s was deleted while it ran: the rest of its metrics and tags is dropped.", self._id)
        return True


def is_refusal(error: Exception) -> bool:
    """Whether MLflow answered and said no: trying again is of no use."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.error_code in REFUSALS


def is_active(client: MlflowClient, run_id: str) -> bool:
    """Whether there is such a run and it was not deleted.

    Raises:
        MlflowException: The backend does not answer.
    """
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except Exception as error:
        if is_refusal(error):
            return False
        raise
