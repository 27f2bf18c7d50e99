"""What every model card says: the Hub's metadata, scores with their standard errors, and how the export was measured.

The header's keys are those of https://huggingface.co/docs/hub/model-cards#model-card-metadata.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from loraloop.records import Base, Export, Manifest, Parity, Score, Version

NOTHING = 0.01
"""A merge that changes a smaller share of the adapted weights than this is said to change almost nothing."""
RELATION = {"adapter": "adapter", "merged": "finetune", "gguf": "quantized", "gguf-lora": "adapter"}
"""The Hub's words; its ``merge`` is of several models."""
LIBRARY = {"adapter": "peft", "merged": "transformers", "gguf": "gguf", "gguf-lora": "gguf"}


Results = Mapping[str, tuple[float, float | None]]
"""Values with their standard errors, by metric."""


def header(
    version: Version, form: str, licence: str | None, results: Results | None = None, rows: int = 0
) -> list[str]:
    """The Hub's metadata, as lines.

    Args:
        version: That is published.
        form: See :class:`loraloop.records.Export`.
        licence: The Hub's name of a licence.
        results: What was measured of this form.
        rows: On how many held-out rows; 0 is not known.
    """
    import yaml

    base = version.manifest.base
    facts: dict[str, object] = {
        "library_name": LIBRARY[form],
        "pipeline_tag": "text-generation",
        **({"license": licence} if licence else {}),
        **({"base_model": base.name, "base_model_relation": RELATION[form]} if on_hub(base) else {}),
        "tags": ["lora", "loraloop"],
        **_index(version, results or {}, rows),
    }
    return ["---", yaml.safe_dump(facts, sort_keys=False, default_flow_style=None).strip(), "---", ""]


def _index(version: Version, results: Results, rows: int) -> dict[str, object]:
    """The scores as the Hub reads them; nothing without any.

    The form is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
    """
    metrics = [
        {"type": name, "value": value, "name": name, **({} if error is None else {"args": {"standard_error": error}})}
        for name, (value, error) in results.items()
        if math.isfinite(value)
    ]
    if not metrics:
        return {}
    fingerprint = version.manifest.dataset_fingerprint
    dataset = {
        "type": "held-out-rows",
        "name": f"{rows} rows that the training held out" if rows else "rows that the training held out",
        **({"revision": fingerprint} if fingerprint else {}),
    }
    one = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}
    return {"model-index": [{"name": f"{version.name}-v{version.number}", "results": [one]}]}


def results(made: Score | None) -> Results:
    """A score as the header takes it."""
    return {} if made is None else {name: (value, made.errors.get(name)) for name, value in made.values.items()}


def on_hub(base: Base) -> bool:
    """Whether a base's name is one of the Hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base.name) is not None


def facts(version: Version, licence: str | None) -> dict[str, str]:
    """What is known of a version."""
    manifest, base = version.manifest, version.manifest.base
    trained_here = manifest.dataset_fingerprint is not None
    return {
        "base": f"{base.name}, revision {base.revision or 'none'}, SHA-256 `{base.sha256}`",
        "quantisation while training": base.quantization,
        "rank, alpha": f"{manifest.rank}, {manifest.alpha:g}",
        "targets": ", ".join(manifest.targets),
        "dataset fingerprint": f"`{manifest.dataset_fingerprint}`" if trained_here else "not known",
        "run": manifest.run_id or ("not tracked" if trained_here else "not known"),
        "weights SHA-256": f"`{manifest.weights_sha256}`",
        **_origin(manifest),
        "licence": licence or "not said; that of the base holds for what is made of it",
        "loraloop": manifest.loraloop_version,
    }


def _origin(manifest: Manifest) -> dict[str, str]:
    """What a version was made of, and to what its weights were rounded before they were merged or converted."""
    found = {
        "compressed from": manifest.compressed_from,
        "combined from": ", ".join(manifest.combined_from),
        "weights rounded to": None if manifest.storage == "plain" else manifest.storage,
    }
    return {name: fact for name, fact in found.items() if fact}


def scores(made: Score | None) -> list[str]:
    """The scores as a table; nothing without any."""
    if made is None or not made.values:
        return []
    rows = {
        name: f"{value:.4g}" + (f" ± {made.errors[name]:.2g}" if name in made.errors else "")
        for name, value in made.values.items()
    }
    told = ", ± standard error" if made.errors.keys() & made.values.keys() else ""
    return [f"## Scores on the held-out part{told}", "", *table("metric", "value", rows)]


def parity(measured: Sequence[Parity]) -> list[str]:
    """How exports answered beside the adapter, and how that was measured."""
    if not measured:
        return []
    names = ["form", "runtime", "answers equal", "scores, export beside adapter", "likeliest tokens", "measured"]
    lines = [_row(names), _row(["---"] * len(names)), *(_row(_parity(each)) for each in measured)]
    return [
        "## Does it answer as the adapter did?",
        "",
        "Each export was loaded by the runtime that it is for, and asked greedily what the held-out rows asked when "
        "the adapter was measured; an answer is equal when its text is. Scores are of these rows, ± standard error. "
        "The last but one column compares the likeliest next tokens after a fixed prompt: how many are the same, and "
        "the largest difference of a logit.",
        "",
        *lines,
        "",
    ]


def of_export(
    version: Version,
    export: Export,
    made: Score | None,
    measured: Parity | None,
    usage: str,
    licence: str | None,
) -> str:
    """The card of a merged or converted version; equal arguments give equal text."""
    into = f" into its {export.merged_into} weights" if export.merged_into else ""
    changed = "" if export.changed is None else f" The merge changed {export.changed:.1%} of the adapted weights."
    if export.changed is not None and export.changed < NOTHING:
        changed += " That is almost nothing: the export is nearly the base."
    unmeasured = (
        "It was not measured whether this export answers as its adapter did: no answers of the adapter are recorded."
    )
    trained = "the unquantised base" if export.trained_on == "none" else f"the base in {export.trained_on}"
    return "\n".join(
        [
            *header(version, export.form, licence, *_measured(measured)),
            f"# {version.name} version {version.number}, {export.form}",
            "",
            f"{export.base} with a LoRA adapter{into}, exported by loraloop as {export.form} in {export.dtype}. The "
            f"adapter was trained on {trained}.{changed}",
            "",
            *table("fact", "value", facts(version, licence)),
            *(scores(made)),
            *(parity([measured]) if measured else [unmeasured, ""]),
            "## Use",
            "",
            usage,
            "",
        ]
    )


def _measured(made: Parity | None) -> tuple[Results, int]:
    return (
        ({}, 0) if made is None else ({name: (each.value, each.error) for name, each in made.scores.items()}, made.rows)
    )


def table(name: str, value: str, rows: Mapping[str, str]) -> list[str]:
    """A table of two columns."""
    return [f"| {name} | {value} |", "| --- | --- |", *(f"| {key} | {text} |" for key, text in rows.items()), ""]


def _parity(made: Parity) -> list[str]:
    told = [
        f"{name} {each.value:.3f}{_error(each.error)} beside {each.recorded:.3f}{_error(each.recorded_error)}"
        for name, each in made.scores.items()
    ]
    logits = made.logits
    near = "no probe" if logits is None else f"{logits.shared} of {logits.tokens}, {logits.off}"
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    equal = f"{round(made.agreement * made.rows)} of {made.rows} ({made.min_agreement:g} asked)"
    when = f"{made.measured}, {made.machine}"
    return [f"{made.form} {made.dtype}", f"{made.runtime} ({versions})", equal, "; ".join(told), near, when]


def _error(value: float | None) -> str:
    return "" if value is None else f" ± {value:.3f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
