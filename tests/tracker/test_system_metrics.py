"""Processor, memory, disk and network of a run."""

from __future__ import annotations

import logging

import psutil

from loraloop.tracker.mlflow import Mlflow


class TestSystemMetrics:
    """Samples of the machine's load."""

    def test_a_short_run_has_them(self, folder):
        """A run of a moment, far shorter than the sampling interval, still has one sample."""
        with Mlflow(folder=str(folder)).start("short"):
            pass
        metrics = Mlflow(folder=str(folder)).read("short")["metrics"]
        assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
        assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= set(metrics)

    def test_can_be_switched_off(self, folder):
        """With system_metrics=false only what the stage logs is logged."""
        tracker = Mlflow(folder=str(folder), system_metrics=False)
        with tracker.start("plain"):
            pass
        assert tracker.read("plain")["metrics"] == {}

    def test_a_machine_that_cannot_be_measured_is_no_error(self, folder, monkeypatch, caplog):
        """Where counters are missing, as in some containers, the run goes on with one warning."""
        monkeypatch.setattr(psutil, "net_io_counters", lambda: None)
        with caplog.at_level(logging.WARNING), Mlflow(folder=str(folder)).start("blind") as run:
            run.metrics({"train/loss": 1.0})
        assert [record.name for record in caplog.records] == ["loraloop.tracker.system_metrics"]
        assert Mlflow(folder=str(folder)).read("blind")["metrics"] == {"train/loss": 1.0}
