"""Smaller forms of a version, measured beside it, and the smallest one that is not worse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop import __version__
from loraloop.compress import plots
from loraloop.compress.adapter import Adapter
from loraloop.core import adapter_files, console, servable
from loraloop.core.hashing import sha256
from loraloop.errors import ArtefactError, ConfigError, RegistryError
from loraloop.gate.comparison import not_worse
from loraloop.registry import manifest as manifests
from loraloop.workflows import continuation, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.gate.gate import Gate
    from loraloop.protocols import Compression, Run
    from loraloop.records import Dataset, Example, LoadedModel, Manifest, Probe, Score, Version
    from loraloop.registry.mlflow import MlflowRegistry

ORIGINAL = "original"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form of an adapter on disk: ``rank`` is the largest of its layers."""

    name: str
    folder: Path
    rank: int
    storage: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a form answers.

    Attributes:
        agreement: Share of its answers that are the original's, 0..1.
        p: Of the test that it is not worse than the original by the margin; ``None`` for the original.
    """

    form: Form
    score: Score
    agreement: float
    p: float | None
    probe: Probe | None = None


def require_compressible(version: Version) -> None:
    """Check that a version is a plain LoRA on a real base.

    Raises:
        RegistryError: Its base has random weights.
        ModelError: It is more than LoRA's two matrices a layer, such as DoRA.
    """
    if version.manifest.base.weights == "random":
        raise RegistryError(
            f"the base {version.manifest.base.name} has random weights, so no score of it means anything"
        )
    servable.require_settings(version.path / adapter_files.CONFIG, manifests.config(version.path))


def require_rows(version: Version, rows: Dataset) -> None:
    """Check that the rows are those of the version's run.

    Raises:
        ConfigError: They are of another dataset.
    """
    known = version.manifest.dataset_fingerprint
    if known is not None and known != rows.fingerprint:
        raise ConfigError(
            f"the rows (fingerprint {rows.fingerprint[:16]}) are not those of {version.name} version {version.number} "
            f"({known[:16]}), and rows that it was trained on would hide a loss: give the source, dataset and seed of "
            f"its run {version.manifest.run_id or '(not tracked)'}, or measure on these all the same with "
            "other_rows=true"
        )


def make(version: Version, compress: Compression, output: Path) -> list[Form]:
    """Write the smaller forms of a version.

    Raises:
        ConfigError: There is no form that is smaller than the adapter's, by rank.
    """
    adapter = Adapter.read(version.path)
    kept = version.manifest.storage
    made = [Form(name=ORIGINAL, folder=version.path, rank=adapter.rank, storage=kept, bytes=_bytes(version.path))]
    for name, form in compress.forms(adapter):
        folder = output / "forms" / name.replace(" ", "-")
        folder.mkdir(parents=True)
        size = form.write(folder)
        made.append(Form(name=name, folder=folder, rank=form.rank, storage=form.storage, bytes=size))
    if len(made) == 1:
        raise ConfigError(f"compress.ranks holds no rank below the adapter's, which is {adapter.rank}")
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Measures forms on held-out rows.

    Attributes:
        margin: See :func:`loraloop.gate.comparison.not_worse`.
    """

    loaded: LoadedModel
    rows: Dataset
    correct: Callable[[Example, str], bool]
    evaluation: Evaluation
    gate: Gate
    margin: float

    def all(self, version: Version, forms: Sequence[Form]) -> list[Measured]:
        """Every form, the original first; its score is cached like a champion's."""
        from loraloop.model import adapters

        first, *others = forms
        original = self.evaluation.score_adapter(
            self.loaded,
            self.rows.validation,
            self.correct,
            manifests.content_sha256(version.path, version.manifest),
            adapters.attached(self.loaded.model, version.path),
            f"evaluate {first.name}",
        )
        self._require_metric(original)
        made = [Measured(form=first, score=original, agreement=1.0, p=None)]
        return made + [self._one(form, original) for form in others]

    def _one(self, form: Form, original: Score) -> Measured:
        from loraloop.model import adapters

        with adapters.attached(self.loaded.model, form.folder) as tuned:
            score = self.evaluation.score(
                tuned, self.loaded.tokenizer, self.rows.validation, self.correct, f"evaluate {form.name}"
            )
            probe = adapters.probe(tuned, self.loaded.tokenizer)
        pairs = zip(score.generations, original.generations, strict=True)
        equal = sum(ours.answer == theirs.answer for ours, theirs in pairs)
        p = not_worse(self.gate.metric, score, original, self.margin)
        return Measured(form=form, score=score, agreement=equal / score.rows, p=p, probe=probe)

    def _require_metric(self, score: Score) -> None:
        if self.gate.metric not in score.values:
            raise ConfigError(
                f"gate.metric={self.gate.metric} does not apply to these rows: {', '.join(score.values)} do"
            )


def propose(measured: Sequence[Measured], max_p: float) -> Measured | None:
    """The smallest form that is smaller than the original and not worse by the margin; ``None`` if there is none.

    Args:
        measured: The original first.
        max_p: Level of the test.
    """
    original, *others = measured
    good = [each for each in others if each.p is not None and each.p <= max_p and each.form.bytes < original.form.bytes]
    return min(good, key=lambda each: each.form.bytes, default=None)


def register(version: Version, chosen: Measured, run: Run, registry: MlflowRegistry, told: str) -> Version:
    """Register a form as candidate beside the version that it is a form of."""
    manifest = _manifest(version, chosen, run.id)
    manifests.write(chosen.form.folder, manifest)
    made = registry.register(chosen.form.folder, manifest, run.id)
    numbers = {"from": continuation.name(version), "bytes": chosen.form.bytes, "agreement": chosen.agreement}
    registry.record("compress", made.number, told, numbers)
    return made


def log(run: Run, measured: Sequence[Measured], gate: Gate, chosen: Measured | None, output: Path) -> None:
    """Keep table, picture and the answers of the chosen form, or of the original, with the run and in the job's folder.

    ``stage=verify`` compares an export of the new version with these answers.
    """
    from loraloop.evaluation import store

    points = [_point(each, gate, chosen) for each in measured]
    figure = plots.sizes(points, gate.metric, measured[0].score.rows)
    figure.savefig(output / "compression.png")
    run.figure(figure, "plots/compression.png")
    rows = [_facts(each, gate.metric) for each in measured]
    (output / "compression.json").write_text(json.dumps(rows, indent=2) + "\n", "utf8")
    run.table(rows, "compression.json")
    kept = chosen or measured[0]
    store.write(kept.score, output / "evaluation" / "adapter")
    run.artifact(output / "evaluation", "evaluation")
    run.metrics(report.score_metrics(kept.score, "final") | {"compress/agreement": kept.agreement})


def show(measured: Sequence[Measured], gate: Gate, margin: float) -> None:
    """Print the table."""
    metric = gate.metric
    rows = [
        [
            each.form.name,
            str(each.form.rank),
            console.size(each.form.bytes),
            console.value_with_error(each.score[metric], each.score.errors.get(metric)),
            f"{each.agreement:.3f}",
            "-" if each.p is None else f"{each.p:.2g}",
        ]
        for each in measured
    ]
    columns = ["form", "rank", "size", metric, "agreement", "p"]
    title = f"{measured[0].score.rows} held-out rows, \u00b1 standard error; p that a form is worse by {margin:g}"
    console.table(title, columns, rows)


def told(chosen: Measured | None, measured: Sequence[Measured], gate: Gate, margin: float) -> str:
    """Why a form is proposed, or why none is."""
    if chosen is None:
        rows = measured[0].score.rows
        return (
            f"none: no smaller form is shown to be worse by less than {margin:g} at gate.max_p={gate.max_p:g} on "
            f"{rows} rows; measure on more rows, or allow more with margin=SHARE"
        )
    metric, original = gate.metric, measured[0]
    return (
        f"{chosen.form.name}: {metric} {chosen.score[metric]:.4g} after {original.score[metric]:.4g}, not worse by "
        f"{margin:g} (p {chosen.p:.2g}), {chosen.form.bytes / original.form.bytes:.1%} of the bytes"
    )


def _manifest(version: Version, chosen: Measured, run: str | None) -> Manifest:
    config = manifests.config(chosen.form.folder)
    return replace(
        version.manifest,
        rank=config["r"],
        alpha=float(config["lora_alpha"]),
        weights_sha256=sha256(adapter_files.weights(chosen.form.folder)),
        run_id=run,
        parent_run_id=version.manifest.run_id,
        loraloop_version=__version__,
        probe=chosen.probe,
        storage=chosen.form.storage,
        compressed_from=continuation.name(version),
        # Both were measured with the original's weights.
        general=None,
        parity=(),
    )


def _bytes(folder: Path) -> int:
    try:
        return adapter_files.weights(folder).stat().st_size
    except OSError as error:
        raise ArtefactError(f"{folder} has no weights: {error}") from error


def _facts(each: Measured, metric: str) -> dict[str, object]:
    form = {name: value for name, value in asdict(each.form).items() if name != "folder"}
    error = each.score.errors.get(metric)
    return form | {metric: each.score[metric], f"{metric}_se": error, "agreement": each.agreement, "p": each.p}


def _point(each: Measured, gate: Gate, chosen: Measured | None) -> plots.Point:
    metric = gate.metric
    passed = each.p is not None and each.p <= gate.max_p
    verdict = "original" if each.p is None else "not worse" if passed else "worse, or not known"
    return plots.Point(
        name=each.form.name,
        size=each.form.bytes,
        value=each.score[metric],
        error=each.score.errors.get(metric) or 0.0,
        verdict="proposed" if each is chosen else verdict,
    )
