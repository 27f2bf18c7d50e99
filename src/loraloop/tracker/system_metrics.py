"""Processor, memory, disk, network and NVIDIA cards, as MLflow's own collectors measure them."""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger(__name__)


class SystemMetrics:
    """MLflow's collectors without its thread.

    That thread logs nothing for a run that is shorter than its interval, and has failures and warnings of its own.
    """

    def __init__(self, run_id: str, uri: str) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger(SystemMetricsMonitor.__module__).setLevel(logging.WARNING)
        self._step = -1
        self._monitor: Any = None
        try:
            self._monitor = SystemMetricsMonitor(run_id, tracking_uri=uri)  # type: ignore[no-untyped-call]
        except Exception as error:
            self._give_up(error)

    def sample(self) -> tuple[dict[str, float], int]:
        """What is measured now, as ``system/NAME``, and the number of the sample; nothing once measuring failed."""
        if self._monitor is None:
            return {}, 0
        self._step += 1
        try:
            self._monitor.collect_metrics()
            values = self._monitor.aggregate_metrics()
            for collector in self._monitor.monitors:
                collector.clear_metrics()
        except Exception as error:
            self._give_up(error)
            return {}, 0
        return {f"system/{name}": float(value) for name, value in values.items()}, self._step

    def _give_up(self, error: Exception) -> None:
        _log.warning("System metrics are not logged, because they cannot be measured here: %s", error)
        self._monitor = None
