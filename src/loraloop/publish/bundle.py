"""The files that are published for a version, and the model card among them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from loraloop.core.adapter_files import MANIFEST
from loraloop.errors import RegistryError
from loraloop.records import Base, Manifest, Version

CARD = "README.md"


def bundle(version: Version, metrics: Mapping[str, float], where: str) -> dict[str, Path | bytes]:
    """The files by name, the manifest last: a place that has it has everything.

    Args:
        version: A registered, verified version.
        metrics: What it scored, for the card.
        where: How ``PeftModel.from_pretrained`` will find it.

    Raises:
        RegistryError: The version is a folder that was never registered.
    """
    if version.number < 1:
        raise RegistryError(
            f"{version.path} is not registered, and only versions are published; use stage=register first"
        )
    kept = {path.name: path for path in sorted(version.path.iterdir()) if path.name not in (CARD, MANIFEST)}
    return {**kept, CARD: card(version, metrics, where).encode(), MANIFEST: version.path / MANIFEST}


def card(version: Version, metrics: Mapping[str, float], where: str) -> str:
    """A model card in Markdown with the Hub's metadata header; equal arguments give equal text."""
    manifest, base = version.manifest, version.manifest.base
    trained_here = manifest.dataset_fingerprint is not None
    facts = {
        "base": f"{base.name}, revision {base.revision or 'none'}, SHA-256 `{base.sha256}`",
        "quantisation while training": base.quantization,
        "rank, alpha": f"{manifest.rank}, {manifest.alpha:g}",
        "targets": ", ".join(manifest.targets),
        "dataset fingerprint": f"`{manifest.dataset_fingerprint}`" if trained_here else "not known",
        "run": manifest.run_id or ("not tracked" if trained_here else "not known"),
        "weights SHA-256": f"`{manifest.weights_sha256}`",
        **_origin(manifest),
        "loraloop": manifest.loraloop_version,
    }
    scores = {name: f"{value:.4g}" for name, value in metrics.items()}
    return "\n".join(
        [
            *_header(base),
            f"# {version.name} version {version.number}",
            "",
            f"A LoRA adapter for {base.name}, "
            + ("trained with loraloop." if trained_here else "trained elsewhere and registered with loraloop."),
            "",
            *_table("fact", "value", facts),
            *(["## Scores on the held-out part", "", *_table("metric", "value", scores)] if scores else []),
            "## Use",
            "",
            *_usage(base, where),
            "The prompt was rendered by this template:" if trained_here else "Prompts are rendered by this template:",
            "",
            *_fenced("text", manifest.template),
        ]
    )


def _origin(manifest: Manifest) -> dict[str, str]:
    """What a version was made of, and how its weights are kept where PEFT cannot read them."""
    facts = {
        "compressed from": manifest.compressed_from,
        "combined from": ", ".join(manifest.combined_from),
        "weights": None if manifest.storage == "plain" else f"{manifest.storage}, which loraloop alone loads",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _header(base: Base) -> list[str]:
    on_hub = [f"base_model: {json.dumps(base.name)}"] if _on_hub(base) else []
    return ["---", "library_name: peft", "pipeline_tag: text-generation", *on_hub, "tags: [lora, loraloop]", "---", ""]


def _usage(base: Base, where: str) -> list[str]:
    if _on_hub(base):
        revision = f", revision={base.revision!r}" if base.revision else ""
        load = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({base.name!r}{revision})",
            f"tokenizer = AutoTokenizer.from_pretrained({base.name!r}{revision})",
        ]
    else:
        load = [
            "from loraloop.model.causal import CausalLM",
            "",
            f"loaded = CausalLM(name={base.name!r}).load()",
            "base, tokenizer = loaded.model, loaded.tokenizer",
        ]
    code = ["from peft import PeftModel", *load, f"model = PeftModel.from_pretrained(base, {where!r})"]
    return _fenced("python", "\n".join(code))


def _on_hub(base: Base) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base.name) is not None


def _table(name: str, value: str, rows: Mapping[str, str]) -> list[str]:
    return [f"| {name} | {value} |", "| --- | --- |", *(f"| {key} | {text} |" for key, text in rows.items()), ""]


def _fenced(language: str, text: str) -> list[str]:
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text, fence, ""]
