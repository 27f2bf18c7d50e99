"""What a run is, in a few lines that a person reads on its page.

The result and the version come first: MLflow folds a description after four lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.core.passwords import without_user
from loraloop.workflows.rows import unmeasured

if TYPE_CHECKING:
    from loraloop.lora import Lora
    from loraloop.records import Dataset, Job, Score, Version
    from loraloop.registry.mlflow import MlflowRegistry

TAG = "description"
"""The tag of a run that a tracker shows as its description."""


def begun(job: Job, rows: Dataset, lora: Lora) -> str:
    """Data, base and adapter of a run."""
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    counts = f"{len(rows.train)} rows to train on, {len(rows.validation)} held out{unmeasured(rows)}"
    facts = {
        "data": f"{job.choices.get('source', 'own')}, {counts}, fingerprint {rows.fingerprint[:16]}",
        "base": str(job.config.get("model", {}).get("name", "")),
        "adapter": f"LoRA of rank {lora.r}, alpha {lora.effective_alpha:g}, on {targets}",
    }
    return "\n".join(_line(name, fact) for name, fact in facts.items())


def ended(metric: str, base: Score, adapter: Score) -> str:
    """The held-out score of a run, beside its base's."""
    values = [f"{metric} {_value(metric, adapter)} (base {_value(metric, base)})"]
    values += [f"loss {_value('loss', adapter)}"] if metric != "loss" else []
    return _line("result", f"{', '.join(values)}, on {adapter.rows} rows")


def registered(version: Version, registry: MlflowRegistry) -> str:
    """The version that a run's adapter became, with a link to its page."""
    uri = registry.uri or ""
    # The pages of a local database have the address that the link is read at, whatever that is.
    site = without_user(uri).rstrip("/") + "/" if uri.startswith("http") else ""
    link = f"{site}#/models/{version.name}/versions/{version.number}"
    return _line("version", f"[{version.name} version {version.number}]({link})")


def _value(metric: str, score: Score) -> str:
    return console.value_with_error(score[metric], score.errors.get(metric))


def _line(name: str, fact: str) -> str:
    return f"- **{name}**: {fact}"
