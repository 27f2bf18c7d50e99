"""The config group ``tracing``: where served answers also go as traces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from loraloop.core.extras import require
from loraloop.core.part import part
from loraloop.core.passwords import mask
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from loraloop.tracing.mlflow import MlflowTraces
    from loraloop.tracing.otlp import OtlpReceiver


@part
class Tracing:
    """Where served answers also go as traces; by default nowhere.

    Attributes:
        mlflow: Whether they go to MLflow.
        uri: MLflow's server; ``None`` is ``mlflow.db`` in ``folder``.
        folder: Home of that database.
        experiment: MLflow's experiment of these traces; created when missing.
        otlp: Base address of an OTLP receiver; ``None``: none.
        seconds: Between two looks for what waits.
        rated_days: Age up to which traces are looked at for what people rated in MLflow.
    """

    mlflow: bool = False
    uri: str | None = None
    folder: Path = Path("mlruns")
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "loraloop-answers"
    otlp: str | None = None
    seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    rated_days: Annotated[float, Field(gt=0, le=3650)] = 30

    @field_validator("otlp")
    @classmethod
    def _an_address(cls, otlp: str | None) -> str | None:
        if otlp and not re.match(r"https?://[^/]", otlp):
            raise ValueError(f"write the base address of an OTLP receiver, such as http://127.0.0.1:4318, not {otlp!r}")
        return otlp or None

    def check(self) -> None:
        """See that what is exported with is installed.

        Raises:
            MissingDependencyError: It is not; without the package, ``tracing.otlp=null`` exports nothing.
        """
        if self.otlp is not None:
            require("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otlp")

    def require_place(self) -> None:
        """See that answers go somewhere.

        Raises:
            ConfigError: They go nowhere.
        """
        if not self.names:
            raise ConfigError(
                "served answers are exported nowhere: tracing.mlflow=true sends them to MLflow, and "
                "tracing.otlp=http://127.0.0.1:4318 to an OTLP receiver; give the same to stage=serve"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Where answers go, as the queue calls it."""
        return ("mlflow",) * self.mlflow + ("otlp",) * (self.otlp is not None)

    @property
    def told(self) -> str:
        """Where answers go, for people; empty where they go nowhere."""
        places = [f"MLflow ({mask(self.uri or str(self.folder / 'mlflow.db'))}, {self.experiment})"] * self.mlflow
        return ", ".join([*places, *([f"OTLP ({mask(self.otlp)})"] if self.otlp else [])])

    def mlflow_traces(self) -> MlflowTraces:
        """MLflow as a place for traces; it is reached when it is used."""
        from loraloop.tracing.mlflow import MlflowTraces

        return MlflowTraces(self.uri, self.folder, self.experiment)

    def places(self) -> list[MlflowTraces | OtlpReceiver]:
        """Every place that answers go to; each is reached when it is used."""
        from loraloop.tracing.otlp import OtlpReceiver

        found: list[MlflowTraces | OtlpReceiver] = [self.mlflow_traces()] if self.mlflow else []
        return found + ([OtlpReceiver(self.otlp)] if self.otlp else [])
