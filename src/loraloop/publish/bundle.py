"""The files that are published for a version, and the model card among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from loraloop.core import adapter_files
from loraloop.core.adapter_files import MANIFEST, PACKED, WEIGHTS, manifest_bytes
from loraloop.errors import RegistryError
from loraloop.publish import card as cards
from loraloop.publish import template
from loraloop.publish.export import FACTS, PARITY
from loraloop.records import Base, Manifest, Score, Version

CARD = "README.md"
Files = Mapping[str, Path | bytes]
Form = Literal["adapter", "merged", "gguf", "gguf-lora"]
"""What a place takes: the adapter, or an export that ``publish=merged`` or ``publish=gguf`` made before."""


def chosen(
    version: Version,
    scores: Score | None,
    where: str,
    licence: str | None,
    export: Path | None,
    chat: str | None = None,
) -> Files:
    """The files of an export's folder as they are, or of the version; what completes them comes last.

    Args:
        version: See :func:`bundle`; so are the others.
        scores: What it scored.
        where: How it will be found.
        licence: The Hub's name of a licence.
        export: Folder of the export; ``None``: the version.
        chat: The chat template beside an adapter.

    Raises:
        RegistryError: There is no export, and the version is a folder that was never registered.
    """
    if export is None:
        return bundle(version, scores, where, licence, chat)
    found = {str(path.relative_to(export)): path for path in sorted(export.rglob("*")) if path.is_file()}
    facts = found.pop(FACTS)
    return {**found, FACTS: facts}


def marker(files: Files) -> str:
    """The file that completes a place: its manifest, or what an export says of itself."""
    return next(reversed(list(files)))


def may_differ(name: str) -> bool:
    """Whether a published file may be another one: people edit the card, and measurements come later."""
    return name == CARD or fnmatch(name, PARITY)


def bundle(
    version: Version, scores: Score | None, where: str, licence: str | None = None, chat: str | None = None
) -> dict[str, Path | bytes]:
    """The files by name, the manifest last: a place that has it has everything. Packed weights become plain ones.

    Args:
        version: A registered, verified version.
        scores: What it scored, for the card.
        where: How ``PeftModel.from_pretrained`` will find it.
        licence: The Hub's name of a licence.
        chat: The chat template of the training where it is not the base's own, see :func:`template.travelling`.

    Raises:
        ModelError: Packed weights are damaged.
        RegistryError: The version is a folder that was never registered.
    """
    if version.number < 1:
        raise RegistryError(
            f"{version.path} is not registered, and only versions are published; use stage=register first"
        )
    own = (CARD, MANIFEST, PACKED)
    kept: dict[str, Path | bytes] = {each.name: each for each in sorted(version.path.iterdir()) if each.name not in own}
    kept[WEIGHTS] = adapter_files.plain_weights(version.path)
    beside = {template.FILE: chat.encode()} if chat else {}
    plain = adapter_files.plain_manifest(version.path, version.manifest)
    # The card keeps the storage: it tells to what the weights were rounded before they became plain.
    told = replace(version, manifest=replace(version.manifest, weights_sha256=plain.weights_sha256))
    text = card(told, scores, where, licence).encode()
    return {**kept, **beside, CARD: text, MANIFEST: _manifest(version, plain)}


def _manifest(version: Version, plain: Manifest) -> Path | bytes:
    """The manifest without what was measured of exports since: it stays equal, and the card tells that."""
    if not version.manifest.parity and plain is version.manifest:
        return version.path / MANIFEST
    facts = json.loads((version.path / MANIFEST).read_bytes())
    facts.pop("parity", None)
    if plain is not version.manifest:
        facts |= {"storage": plain.storage, "weights_sha256": plain.weights_sha256}
    return manifest_bytes(facts)


def card(version: Version, scores: Score | None, where: str, licence: str | None = None) -> str:
    """A model card in Markdown with the Hub's metadata header; equal arguments give equal text."""
    manifest, base = version.manifest, version.manifest.base
    trained_here = manifest.dataset_fingerprint is not None
    return "\n".join(
        [
            *cards.header(version, "adapter", licence, cards.results(scores), scores.rows if scores else 0),
            f"# {version.name} version {version.number}",
            "",
            f"A LoRA adapter for {base.name}, "
            + ("trained with loraloop." if trained_here else "trained elsewhere and registered with loraloop."),
            "",
            *cards.table("fact", "value", cards.facts(version, licence)),
            *cards.scores(scores),
            *cards.parity(manifest.parity),
            "## Use",
            "",
            *_usage(base, where),
            "The prompt was rendered by this template:" if trained_here else "Prompts are rendered by this template:",
            "",
            *_fenced("text", manifest.template),
        ]
    )


def _usage(base: Base, where: str) -> list[str]:
    if cards.on_hub(base):
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


def _fenced(language: str, text: str) -> list[str]:
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text, fence, ""]
