"""Stage ``evaluate``: an adapter and its base on the held-out part of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.workflows import report
from loraloop.workflows import rows as data

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Source, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def evaluate(
    job: Job,
    adapter: str,
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    evaluation: Evaluation,
    tracker: Tracker,
    registry: MlflowRegistry,
) -> float:
    """Score the adapter and its base on the same rows, and log both scores in a new run.

    Returns:
        The adapter's loss.
    """
    from loraloop.evaluation import plots, store
    from loraloop.model import adapters
    from loraloop.registry import manifest as manifests

    version = registry.resolve(str(adapter))
    loaded = model.load()
    manifests.verify_adapter(loaded.base, version.manifest)
    rows = data.prepare(source, ocr, dataset, loaded.tokenizer)
    with tracker.start(f"evaluate-{version.name}-{version.number}") as run:
        run.params({**console.flatten(job.config), "seed": str(job.seed), "adapter": str(adapter)})
        base = evaluation.score_base(loaded, rows.validation, source.correct)
        few_shot = evaluation.score_few_shot(loaded, rows.validation, rows.train, source.correct)
        tuned = adapters.attach(loaded.model, version.path)
        score = evaluation.score(tuned, loaded.tokenizer, rows.validation, source.correct, "evaluate adapter")
        measured = {"base": base, "few_shot": few_shot, "final": score}
        for name, each in ((name, each) for name, each in measured.items() if each is not None):
            run.metrics(report.score_metrics(each, name))
            store.write(each, job.output / "evaluation" / ("adapter" if each is score else name))
        run.artifact(job.output / "evaluation", "evaluation")
        run.table(evaluation.table(score, {"base": base, "few_shot": few_shot}), "evaluation/samples.json")
        run.figure(plots.bars(base, score), "plots/base_vs_adapter.png")
        link = run.link
    report.scores(base, score, few_shot)
    trained_on = version.manifest.dataset_fingerprint
    other = (
        ", of another dataset than it was trained on"
        if trained_on
        else ", and which rows it was trained on is not known"
    )
    console.facts(
        f"{version.name} version {version.number}",
        {
            "held-out rows": f"{len(rows.validation)}{data.unmeasured(rows)}"
            + ("" if trained_on == rows.fingerprint else f"{other}: some may have been in its training part"),
            "run": link or "not tracked",
        },
    )
    return score["loss"]
