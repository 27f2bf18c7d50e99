"""Every form of a version in every runtime that loads it: equal answers, scores, size, loading time and speed.

Needs registered versions, llama.cpp (``loraloop[gguf]``) and, for vLLM, the interpreter of an environment with it::

    loraloop +experiment=tool_calling lora=r8 source.conversations=90 dataset.validation_share=0.15
    python benchmarks/export.py loraloop-tool-calling/1 --vllm .venv-vllm/bin/python --rows 64

Every export is made and measured as ``stage=publish`` and ``stage=verify`` do it, and no share is asked for: the
table shows what would be refused too. Results are added to those of other versions in ``results/export.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import describe

from loraloop.core.console import size
from loraloop.protocols import Runtime
from loraloop.publish import template
from loraloop.publish.folder import Folder
from loraloop.publish.gguf import Gguf
from loraloop.publish.merged import Merged
from loraloop.records import Export, Version
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.runtime.llama_cpp import LlamaCpp
from loraloop.runtime.transformers import Transformers
from loraloop.runtime.vllm import Vllm
from loraloop.tracker.mlflow import Mlflow
from loraloop.workflows import export_folder, parity, parity_report
from loraloop.workflows.version_base import VersionBase

RESULTS = Path(__file__).parent / "results" / "export.json"
GGUF, OTHERS = ("llama_cpp",), ("transformers", "vllm-bfloat16", "vllm-float32")
"""Runtimes of files of llama.cpp, and of all others."""
ORDER = (
    "peft",
    "merged",
    "merged-bf16",
    "merged-unquantised",
    *(f"gguf-{kind}" for kind in ("lora", "f16", "q8_0", "q4_k_m")),
)
"""Of the forms in the table."""
EAGER = ("--enforce-eager",)
"""Without it vLLM compiles for minutes on two cores."""


def exports(version: Version, folder: Path, wanted: str, runtime: str) -> Iterator[tuple[str, Path]]:
    """Every form, as a folder, that a runtime loads whose name contains ``runtime``."""
    base = VersionBase(version)
    makers: dict[str, Any] = {
        "peft": Folder(path=folder),
        "merged": Merged(path=folder / "as-trained"),
        "merged-bf16": Merged(path=folder / "bf16", dtype="bfloat16"),
        "gguf-lora": Gguf(path=folder),
        **{f"gguf-{kind}": Gguf(path=folder, merge=True, dtype=kind) for kind in ("f16", "q8_0", "q4_k_m")},  # type: ignore[arg-type]
    }
    if version.manifest.base.quantization != "none":
        del makers["gguf-lora"]
        makers["merged-unquantised"] = Merged(path=folder / "unquantised", from_nf4=True)
    for name, maker in makers.items():
        loaded = any(runtime in each for each in (GGUF if name.startswith("gguf") else OTHERS))
        if loaded and (wanted in (name, "") or (wanted.endswith("*") and name.startswith(wanted[:-1]))):
            if name == "peft":
                chat = template.travelling(version.manifest, base.tokenizer)
                yield name, Path(maker.publish(version, None, chat=chat))
            else:
                yield name, Path(maker.publish(version, None, base, lambda _folder, _export: None))


def runtimes(export: Export, vllm: Path | None) -> Iterator[tuple[str, Runtime]]:
    """Every runtime that loads a form, as its user starts it."""
    if export.form in LlamaCpp.FORMS:
        yield "llama_cpp", LlamaCpp()
    if export.form in Transformers.FORMS:
        yield "transformers", Transformers()
    if vllm is not None and export.form in Vllm.FORMS and export.trained_on == "none":
        kinds = ("bfloat16", "float32") if export.dtype == "float32" else ("bfloat16",)
        for kind in kinds:
            yield f"vllm-{kind}", Vllm(python=vllm, dtype=kind, options=EAGER)  # type: ignore[arg-type]


def table() -> str:
    """The results as Markdown."""
    names = "adapter", "form", "runtime", "answers equal", "score, export beside adapter", "logits off", "size"
    lines = [[*names, "loaded in", "tokens/s"], ["---"] * 9]
    results = json.loads(RESULTS.read_text())["results"]
    results.sort(
        key=lambda each: (each["adapter"], each["compressed"] or "", ORDER.index(each["export"]), each["runtime"])
    )
    for each in results:
        graded = each["scores"].get("exact_match", {"recorded": 0})["recorded"] > 0
        name = "exact_match" if graded else "rouge_l"
        compared = each["scores"][name]
        least = 0.9 if each["trained_on"] != "none" or each["dtype"].startswith("q4") else 0.98
        refused = "" if each["agreement"] >= least else ": refused"
        near = each["logits"] and each["logits"]["difference"]
        lines.append(
            [
                each["adapter"] + ("" if each["trained_on"] == "none" else ", NF4"),
                each["export"] + (f" ({each['compressed']})" if each["compressed"] else ""),
                each["runtime"].replace("-", ", "),
                f"{round(each['agreement'] * each['rows'])} of {each['rows']}{refused}",
                f"{name} {compared['value']:.3f} ± {compared['error']:.3f} beside {compared['recorded']:.3f}",
                "not known" if near is None else f"{near:.2g}",
                size(each["bytes"]),
                f"{each['load_seconds']:.1f} s",
                f"{each['tokens_per_second']:.{0 if each['tokens_per_second'] >= 100 else 1}f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("version", nargs="?", help="NAME/NUMBER in the registry; without it the table is printed")
    arguments.add_argument("--folder", type=Path, default=Path("mlruns"), help="of registry and tracker")
    arguments.add_argument("--rows", type=int, default=32)
    arguments.add_argument("--vllm", type=Path)
    arguments.add_argument("--form", default="", help="only this form, or with a star those that begin so")
    arguments.add_argument("--runtime", default="", help="only runtimes whose name contains this")
    given = arguments.parse_args()
    if given.version is None:
        print(table())
        return
    name, _, number = given.version.partition("/")
    version = MlflowRegistry(name=name, folder=given.folder).resolve(number)
    known = parity.recorded(version, given.rows, Mlflow(folder=str(given.folder)))
    with tempfile.TemporaryDirectory() as scratch:
        for form, folder in exports(version, Path(scratch), given.form, given.runtime):
            export = export_folder.read(folder)
            for label, runtime in runtimes(export, given.vllm):
                if given.runtime in label:
                    made = parity.measure(version, folder, export, runtime, known, VersionBase(version), 0.0)
                    parity_report.report(made, version, folder)
                    more = {"changed": export.changed, "load_average": round(os.getloadavg()[0], 2)}
                    keep(version, form, label, asdict(made) | more)


def compressed(version: Version) -> str | None:
    """To what a version of ``stage=compress`` was compressed."""
    manifest = version.manifest
    if manifest.compressed_from is None:
        return None
    return f"svd, rank {manifest.rank}" if manifest.storage == "plain" else manifest.storage


def keep(version: Version, form: str, runtime: str, made: dict[str, Any]) -> None:
    """Add a result; an earlier one of the same kind is replaced."""
    there = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"results": []}
    base = version.manifest.base
    key = {"model": base.name, "adapter": version.name, "compressed": compressed(version)}
    key |= {"trained_on": base.quantization, "export": form, "runtime": runtime}
    del made["runtime"], made["min_agreement"]
    for each in made["differences"]:
        each["prompt"] = each["prompt"][-60:]
    others = [each for each in there["results"] if any(each.get(name) != value for name, value in key.items())]
    found = {"machine": describe(), "results": [*others, key | made]}
    RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
