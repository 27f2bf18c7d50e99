"""Stage ``compress``: smaller forms of an adapter, and the smallest that is not worse as a candidate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError
from loraloop.workflows import compression
from loraloop.workflows import rows as data

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.gate.gate import Gate
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Compression, Ocr, Source, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def compress(
    job: Job,
    adapter: str,
    margin: float,
    other_rows: bool,
    compress: Compression,
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    evaluation: Evaluation,
    gate: Gate,
    tracker: Tracker,
    registry: MlflowRegistry,
) -> float | None:
    """Measure an adapter and its smaller forms on the rows that its run held out.

    Returns:
        Bytes of the proposed form over those of the original; ``None`` where none is proposed.

    Raises:
        ConfigError: The rows are not those of its run, or no form is smaller.
    """
    from loraloop.registry import manifest as manifests

    if not 0 < float(margin) < 1:
        raise ConfigError(f"margin={margin} must lie between 0 and 1: the share by which a smaller form may be worse")
    version = registry.resolve(str(adapter))
    compression.require_compressible(version)
    forms = compression.make(version, compress, job.output)
    rows = data.prepare(source, ocr, dataset, model.skeleton().tokenizer)
    if not other_rows:
        compression.require_rows(version, rows)
    loaded = model.load()
    manifests.verify_adapter(loaded.base, version.manifest)
    measurement = compression.Measurement(
        loaded=loaded, rows=rows, correct=source.correct, evaluation=evaluation, gate=gate, margin=float(margin)
    )
    with tracker.start(f"compress-{version.name}-{version.number}") as run:
        run.params({**console.flatten(job.config), "seed": str(job.seed), "adapter": str(adapter)})
        measured = measurement.all(version, forms)
        chosen = compression.propose(measured, gate.max_p)
        told = compression.told(chosen, measured, gate, float(margin))
        compression.log(run, measured, gate, chosen, job.output)
        compression.show(measured, gate, float(margin))
        facts = {"proposed": told}
        if chosen is not None:
            home = replace(registry, name=version.name) if version.number else registry
            made = compression.register(version, chosen, run, home, told)
            facts["registry"] = f"{made.name} version {made.number} ({', '.join(made.aliases)})"
        facts["picture"] = str(job.output / "compression.png")
        facts["run"] = run.link or "not tracked"
    console.facts(f"{version.name} version {version.number}", facts)
    return chosen.form.bytes / forms[0].bytes if chosen else None
