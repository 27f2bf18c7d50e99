"""Stage ``combine``: one adapter out of several of one base, as a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loraloop.core import console
from loraloop.errors import ConfigError
from loraloop.workflows import combination, report

if TYPE_CHECKING:
    from loraloop.combine import Combination
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def combine(
    job: Job,
    adapters: Any,
    rows: int,
    combine: Combination,
    model: CausalLM,
    evaluation: Evaluation,
    tracker: Tracker,
    registry: MlflowRegistry,
) -> float:
    """Combine adapters, measure the result beside them on the rows on which each was measured, and register it.

    Returns:
        The exact match of the combination over all rows.

    Raises:
        ConfigError: The adapters cannot be combined; every reason is named.
        DataError: An adapter has no recorded rows.
    """
    from loraloop.evaluation import store
    from loraloop.registry import manifest as manifests

    if int(rows) < 1:
        raise ConfigError(f"rows={rows} must be 1 or more")
    versions = combination.resolve(adapters, registry)
    combine.of(len(versions))
    combination.require_combinable(versions)
    asked = combination.recorded(versions, tracker, int(rows))
    loaded = model.load()
    manifests.verify_adapter(loaded.base, versions[0].manifest)
    with tracker.start(f"combine-{'-'.join(combination.named(each).replace('/', '-') for each in versions)}") as run:
        run.params({**console.flatten(job.config), "seed": str(job.seed), "adapters": str(adapters)})
        made = combination.make(loaded, versions, combine, evaluation, asked, job.output)
        store.write(made.score, job.output / "evaluation" / "adapter")
        run.artifact(job.output / "evaluation", "evaluation")
        run.metrics(report.score_metrics(made.score, "final"))
        version = combination.register(made, versions, combine, versions[0].manifest.base, registry, run.id)
        lines = combination.table(made, versions)
        columns = ["adapter", *(f"rows of {combination.named(each)}" for each in versions), "all rows"]
        run.table([dict(zip(columns, line, strict=True)) for line in lines], "combination.json")
        link = run.link
    console.table("exact match, \u00b1 standard error", columns, lines)
    facts = {"registry": f"{version.name} version {version.number} ({', '.join(version.aliases)})"}
    facts |= {"made of": ", ".join(version.manifest.combined_from), "run": link or "not tracked"}
    console.facts("combination", facts)
    return made.score["exact_match"]
