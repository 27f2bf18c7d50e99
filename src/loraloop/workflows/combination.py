"""Several adapters of one base as one, measured beside them on the rows on which each was measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop import __version__
from loraloop.core import adapter_files, console, servable
from loraloop.core.hashing import sha256, sha256_json
from loraloop.core.metrics import exact
from loraloop.errors import ConfigError, ModelError
from loraloop.records import Example, Manifest, Provenance, Row, Version
from loraloop.registry import manifest as manifests
from loraloop.workflows import continuation, parity

if TYPE_CHECKING:
    from loraloop.combine import Combination
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.protocols import Tracker
    from loraloop.records import Base, LoadedModel, Probe, Score
    from loraloop.registry.mlflow import MlflowRegistry

SHORT = re.compile(r"(?P<name>\w[\w.-]*)@(?P<which>[\w.-]+)")
LAYERS = ("layers_to_transform", "layers_pattern", "exclude_modules", "fan_in_fan_out")
"""PEFT's settings that the combination has of the first adapter alone."""
LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """A combination on disk, its score, and those of its base and parts, all with a slice for each part's rows."""

    folder: Path
    score: Score
    probe: Probe
    others: dict[str, Score]


def resolve(asked: Any, registry: MlflowRegistry) -> list[Version]:
    """The versions to combine.

    Raises:
        ConfigError: They are fewer than two, or one is named twice.
        RegistryError: There is no such version.
    """
    if not isinstance(asked, list) or len(asked) < LEAST:
        raise ConfigError(f"adapters={asked}: two or more are combined: write adapters=[A@1,B@3]")
    versions = [registry.resolve(_reference(str(each))) for each in asked]
    names = [named(version) for version in versions]
    if len(set(names)) < len(names):
        raise ConfigError(f"adapters={asked} names one version twice: {', '.join(names)}")
    return versions


def named(version: Version) -> str:
    """How a version is named in tables and slices."""
    return f"{version.name}/{version.number}" if version.number else str(version.path)


def require_combinable(versions: Sequence[Version]) -> None:
    """Check that PEFT combines these adapters to one that servers load.

    Raises:
        ConfigError: Of another base, template, rank or form of targets.
        ModelError: One is more than LoRA's two matrices a layer, such as DoRA.
    """
    configs = [manifests.config(version.path) for version in versions]
    first, problems = versions[0], []
    for version, config in zip(versions, configs, strict=True):
        servable.require_settings(version.path / adapter_files.CONFIG, config)
        problems += _misfits(first, configs[0], version, config)
    if problems:
        raise ConfigError(*problems)


def recorded(versions: Sequence[Version], tracker: Tracker, count: int) -> list[Row]:
    """The rows on which the versions were measured, ``count`` of each, evenly spread; a row's task is its version.

    Raises:
        DataError: No answers are kept with a version's run.
    """
    answers = ((version, each) for version in versions for each in parity.recorded(version, count, tracker).answers)
    return [_row(version, each.prompt, each.expected) for version, each in answers]


def right(example: Example, answer: str) -> bool:
    """Whether an answer is the expected text; the rules of the parts' sources are not kept with their runs."""
    return exact(answer, example.output)


def make(
    loaded: LoadedModel, versions: Sequence[Version], combine: Combination, evaluation: Evaluation, rows: list[Row],
    output: Path,
) -> Combined:  # fmt: skip
    """Combine, and measure base, parts and combination on the rows of all parts."""
    from loraloop.model import adapters

    folder = output / "adapter"
    try:
        combine.combine(loaded.model, [version.path for version in versions], folder)
    finally:
        adapters.detach(loaded.model)
    others = {"base": evaluation.score_base(loaded, rows, right)}
    for version in versions:
        content = manifests.content_sha256(version.path, version.manifest)
        attached = adapters.attached(loaded.model, version.path)
        name = named(version)
        others[name] = evaluation.score_adapter(loaded, rows, right, content, attached, f"evaluate {name}")
    with adapters.attached(loaded.model, folder) as tuned:
        score = evaluation.score(tuned, loaded.tokenizer, rows, right, "evaluate combination")
        return Combined(folder=folder, score=score, probe=adapters.probe(tuned, loaded.tokenizer), others=others)


def register(
    made: Combined, versions: Sequence[Version], combine: Combination, base: Base, registry: MlflowRegistry,
    run: str | None,
) -> Version:  # fmt: skip
    """Register a combination as candidate."""
    config = manifests.config(made.folder)
    weights = combine.of(len(versions))
    fingerprints = [version.manifest.dataset_fingerprint for version in versions]
    manifest = Manifest(
        base=base,
        rank=config["r"],
        alpha=float(config["lora_alpha"]),
        targets=tuple(sorted({target for version in versions for target in version.manifest.targets})),
        dataset_fingerprint=sha256_json(fingerprints) if all(fingerprints) else None,
        template=versions[0].manifest.template,
        run_id=run,
        parent_run_id=None,
        weights_sha256=sha256(adapter_files.weights(made.folder)),
        loraloop_version=__version__,
        probe=made.probe,
        combined_from=tuple(
            f"{continuation.name(version)} x {weight:g}" for version, weight in zip(versions, weights, strict=True)
        ),
    )
    version = registry.register(made.folder, manifest, run)
    told = f"{combine.kind} of {', '.join(manifest.combined_from)}"
    registry.record("combine", version.number, told, {"density": combine.density, "seed": combine.seed})
    return version


def table(made: Combined, versions: Sequence[Version]) -> list[list[str]]:
    """A line for base, each part and the combination: exact match on the rows of each part, and over all."""
    everyone = {**made.others, "combination": made.score}
    return [
        [name, *(_cell(score.slices[named(version)]) for version in versions), _cell(score)]
        for name, score in everyone.items()
    ]


def _cell(score: Score) -> str:
    return console.value_with_error(score["exact_match"], score.errors.get("exact_match"))


def _reference(asked: str) -> str:
    found = SHORT.fullmatch(asked)
    if found is None:
        return asked
    return f"models:/{found['name']}{'/' if found['which'].isdigit() else '@'}{found['which']}"


def _row(version: Version, prompt: str, expected: str) -> Row:
    example = Example.one_turn(
        input=prompt,
        output=expected,
        task=named(version),
        provenance=Provenance(source=named(version)),
    )
    return Row(prompt=prompt, completion=expected, example=example)


def _misfits(first: Version, config: dict[str, Any], other: Version, theirs: dict[str, Any]) -> list[str]:
    problems = []
    try:
        manifests.verify_adapter(first.manifest.base, other.manifest)
    except ModelError:
        problems.append(
            f"{named(other)} is of the base {other.manifest.base.name} ({other.manifest.base.sha256[:12]}), and "
            f"{named(first)} of {first.manifest.base.name} ({first.manifest.base.sha256[:12]}): combine adapters of "
            "one base"
        )
    if first.manifest.base.quantization != other.manifest.base.quantization:
        problems.append(
            f"{named(other)} was trained on a base in {other.manifest.base.quantization}, and {named(first)} on one in "
            f"{first.manifest.base.quantization}: combine adapters of one quantisation"
        )
    if first.manifest.template != other.manifest.template:
        problems.append(
            f"{named(other)} has the template {other.manifest.template!r}, and {named(first)} "
            f"{first.manifest.template!r}: a version has one, so combine adapters that were trained with one"
        )
    if theirs.get("rank_pattern") or theirs["r"] != config["r"]:
        others = " and others by rank_pattern" if theirs.get("rank_pattern") else ""
        problems.append(
            f"{named(other)} has rank {theirs['r']}{others}, and PEFT combines adapters of one rank for all layers "
            f"({named(first)} has {config['r']}): make it so with stage=compress compress=svd compress.rank=RANK"
        )
    if isinstance(theirs["target_modules"], str) != isinstance(config["target_modules"], str):
        problems.append(f"{named(other)} and {named(first)} name their targets in two ways, a pattern and a list")
    problems += [
        f"{named(other)} has {key}={theirs.get(key)!r}, and {named(first)} {config.get(key)!r}: PEFT needs the same"
        for key in LAYERS
        if (theirs.get(key) or None) != (config.get(key) or None)
    ]
    return problems
