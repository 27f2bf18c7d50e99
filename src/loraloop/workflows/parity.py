"""Whether an export answers as its adapter did: the same prompts, greedily, in the export's own runtime."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import atomic, console
from loraloop.core.adapter_files import CONFIG, MANIFEST
from loraloop.core.hashing import sha256
from loraloop.core.progress import Progress
from loraloop.errors import ArtefactError, ConfigError, DataError
from loraloop.publish import export as exports
from loraloop.publish import template
from loraloop.records import Compared, Export, Parity
from loraloop.workflows import comparison
from loraloop.workflows.sample_chats import CHATS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import Runtime, RuntimeSession, Tracker
    from loraloop.records import Generation, RuntimeAnswer, Version
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.workflows.version_base import VersionBase

ANSWERS = "evaluation.max_new_tokens"
SLACK = 8
"""Tokens that an answer may be longer than the longest expected one, as where the adapter was measured."""
USUAL, FOUR_BITS = 0.98, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the adapter answered when it was measured, each answer up to ``most`` tokens."""

    answers: tuple[Generation, ...]
    most: int


def read(folder: Path) -> Export:
    """What an export says of itself: ``export.json``, or for a PEFT folder the manifest.

    Raises:
        ArtefactError: It says nothing, or in another form.
    """
    if (folder / exports.FACTS).exists() or not (folder / MANIFEST).exists():
        return exports.read(folder)
    from loraloop.registry import manifest as manifests

    manifest = manifests.read(folder)
    base, own = manifest.base, template.of_training(manifest)
    return Export(
        form="adapter",
        dtype=base.dtype,
        version="an adapter",
        content=manifests.content_sha256(folder, manifest),
        base=base.name,
        trained_on=base.quantization,
        chat_template_sha256=sha256(own.encode()) if own else base.chat_template_sha256,
    )


def find(version: Version, path: Path | None, forms: Sequence[str], registry: MlflowRegistry) -> Path:
    """The folder of a version's export in a form that the runtime loads.

    Args:
        version: Registered.
        path: The folder, or one that holds it; ``None``: where the version was published last.
        forms: That the runtime loads.
        registry: Its ledger says where versions were published.

    Raises:
        ConfigError: There is none, or several.
    """
    places = [path] if path else list(_published(version, registry))
    name = f"{version.name}-v{version.number}"
    near = [each for place in places for each in (place, place / name, *sorted(place.glob(f"{name}-*")))]
    found = {each: read(each) for each in dict.fromkeys(near) if _is_export(each)}
    fitting = [each for each, export in found.items() if export.form in forms]
    if len(fitting) == 1 or (fitting and path is None):
        return fitting[0]
    have = ", ".join(f"{each} ({export.form})" for each, export in found.items()) or "none"
    raise ConfigError(
        f"this runtime loads {' or '.join(forms)}, and the exports of {version.name} version {version.number} "
        f"{f'in {path}' if path else 'that the ledger knows'} are: {have}; publish one with stage=publish, or name its "
        "folder with path=FOLDER"
    )


def recorded(version: Version, rows: int, tracker: Tracker) -> Recorded:
    """The answers that are kept with the version's run, ``rows`` of them, evenly spread.

    Raises:
        DataError: None are kept: it was trained elsewhere, or its run was not tracked.
    """
    from loraloop.evaluation import store

    run = version.manifest.run_id
    if run is None:
        raise DataError(
            f"{version.name} version {version.number} has no run with recorded answers, so there is nothing to compare "
            "an export with: it was trained elsewhere, or with tracker=none"
        )
    generations = store.read(tracker.artifacts(run) / "evaluation" / "adapter").generations
    if not generations:
        raise DataError(f"run {run} recorded no answers")
    step = max(1, len(generations) // max(1, rows))
    return Recorded(
        answers=tuple(generations[::step][: max(1, rows)]), most=int(tracker.read(run)["params"].get(ANSWERS, 128))
    )


def measure(
    version: Version,
    folder: Path,
    export: Export,
    runtime: Runtime,
    known: Recorded,
    base: VersionBase,
    min_agreement: float | None = None,
) -> Parity:
    """Load an export in its runtime and compare its answers, likeliest tokens and scores with the recorded ones.

    Raises:
        ArtefactError: The runtime cannot load it, or its chat template gives other tokens than the training's.
    """
    least = min_agreement if min_agreement is not None else FOUR_BITS if export.four_bits else USUAL
    versions = runtime.versions()  # imports the libraries, which is no part of the loading time
    tokenizer = base.tokenizer()
    longest = max(len(tokenizer(each.expected).input_ids) for each in known.answers) + 1 + SLACK
    begin = time.perf_counter()
    with closing(runtime.open(folder, export, base)) as session:
        loaded = time.perf_counter() - begin
        if template.is_chat(version.manifest):
            _require_template(session, version, tokenizer, folder)
        probe = version.manifest.probe
        near = comparison.logits(probe, session.top(probe.prompt, len(probe.tokens))) if probe else None
        begin = time.perf_counter()
        answers = _ask(session, known, min(known.most, longest))
        seconds = time.perf_counter() - begin
    shown, agreement = comparison.differences(known.answers, answers)
    return Parity(
        runtime=type(runtime).__module__.rpartition(".")[2],
        form=export.form,
        dtype=export.dtype,
        versions=versions,
        machine=f"{platform.machine()}, {platform.system()}, {os.cpu_count()} processors",
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        rows=len(answers),
        agreement=agreement,
        min_agreement=float(least),
        scores=comparison.scores(known.answers, [each.text for each in answers]),
        logits=near,
        load_seconds=round(loaded, 2),
        tokens_per_second=round(sum(len(each.tokens) for each in answers) / seconds, 1),
        bytes=sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()),
        differences=tuple(shown),
    )


def require_unaltered(version: Version, folder: Path, export: Export) -> None:
    """Check that a folder holds an export of a version, as it was written.

    Raises:
        ArtefactError: It holds another version, or was altered.
    """
    if export.form == "adapter":
        from loraloop.registry import manifest as manifests

        manifests.verify(folder, manifests.read(folder))
    if export.content != version.path.name:
        raise ArtefactError(
            f"{folder} holds {export.version} (adapter {export.content[:12]}), and {version.name} version "
            f"{version.number} is adapter {version.path.name[:12]}: name the export's version with adapter="
        )
    if export.form != "adapter":
        exports.verify(folder, export)


def keep(made: Parity, version: Version, folder: Path, registry: MlflowRegistry, tracker: Tracker) -> None:
    """Keep a comparison: beside the weights, in manifest, ledger and tag of the version, and with its MLflow run."""
    with atomic.write(folder / exports.PARITY.replace("*", made.runtime)) as stream:
        facts = asdict(made) | {"passed": made.passed}
        stream.write(json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    owner = replace(registry, name=version.name)
    numbers = {"agreement": made.agreement, "rows": made.rows, "runtime": made.runtime, "place": str(folder)}
    owner.record("parity", version.number, summary(made), numbers)
    owner.note_parity(version, made)
    run = version.manifest.run_id
    if run is None:
        return
    measured = {f"parity/{made.name}/agreement": made.agreement}
    measured |= {f"parity/{made.name}/{name}": each.value for name, each in made.scores.items()}
    with tracker.start("", resume=run) as tracked:
        tracked.metrics(measured)
        tracked.tags({"parity": summary(made)})


def report(made: Parity, version: Version, where: Path | str) -> None:
    """Print the comparison, and the first differing token of some rows."""
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    near = made.logits
    facts = {
        "export": f"{made.form} in {made.dtype}, {where}, {console.size(made.bytes)}",
        "runtime": versions,
        "agreement": summary(made),
        **({"why 0.9": "4-bit weights round more"} if made.min_agreement == FOUR_BITS else {}),
        **{name.replace("_", " "): _beside(each) for name, each in made.scores.items()},
        **({"likeliest": f"{near.shared} of {near.tokens} tokens, logits {near.difference:.2g} off"} if near else {}),
        "speed": f"loaded in {made.load_seconds:.1f} s, {made.tokens_per_second:.1f} tokens/s",
    }
    console.facts(f"{version.name} version {version.number}", facts)
    if made.differences:
        rows = [[_short(d.prompt), str(d.token), repr(d.export), repr(d.recorded)] for d in made.differences]
        console.table("first differing token", ["prompt", "token", "export", "recorded"], rows, numbers=False)


def require(made: Parity, folder: Path | str, key: str) -> None:
    """Refuse an export that answers differently.

    Args:
        made: The comparison.
        folder: What is refused, or what became of it.
        key: By which less is accepted.

    Raises:
        ArtefactError: Too few answers are equal.
    """
    if not made.passed:
        what = f"{folder}: do not use it" if isinstance(folder, Path) else folder
        raise ArtefactError(
            f"the export answers differently from its adapter: {summary(made)}; {what}. Export it in a wider "
            f"publish.dtype, or accept less with {key}=SHARE"
        )


def summary(made: Parity) -> str:
    """What came out, in a line."""
    same = round(made.agreement * made.rows)
    return (
        f"{'passed' if made.passed else 'refused'}: {same} of {made.rows} greedy answers equal through {made.runtime} "
        f"({made.agreement:.3f}, at least {made.min_agreement:g} asked)"
    )


def _published(version: Version, registry: MlflowRegistry) -> Iterator[Path]:
    """Where a version was published, the last place first; places that are not on this machine hold nothing."""
    for entry in reversed(replace(registry, name=version.name).history()):
        if entry.event == "publish" and entry.version == version.number and "place" in entry.numbers:
            yield Path(str(entry.numbers["place"]))


def _is_export(folder: Path) -> bool:
    return (folder / exports.FACTS).is_file() or all((folder / name).is_file() for name in (MANIFEST, CONFIG))


def _ask(session: RuntimeSession, known: Recorded, most: int) -> list[RuntimeAnswer]:
    answers = []
    with Progress("asking the export", "answer", len(known.answers)) as progress:
        for each in known.answers:
            answers.append(session.answer(each.prompt, most))
            progress.advance(1)
    return answers


def _require_template(
    session: RuntimeSession, version: Version, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Compare the tokens of some conversations, with tools where the template shows them."""
    from loraloop.core import prompts
    from loraloop.core.messages import read_all
    from loraloop.errors import ModelError

    for messages, tools in CHATS:
        asked = read_all(messages)
        try:
            text = prompts.ask(version.manifest.template, tokenizer, asked, tools)
        except ModelError:
            continue  # the template has no place for tools or a system's words, here as there
        found, wanted = session.chat(messages, tools), tokenizer(text).input_ids
        if found != wanted:
            raise ArtefactError(
                f"the chat template in {folder} gives other tokens than dataset.template={version.manifest.template} "
                f"in the training ({len(found)} and {len(wanted)} for {messages[-1]['content']!r}): clients that send "
                "messages would ask it in another form. Publish it again; if that does not help, send rendered prompts "
                "to /v1/completions, or train with dataset.template=chatml"
            )


def _beside(each: Compared) -> str:
    return f"{each.value:.4f}{_error(each.error)}, recorded {each.recorded:.4f}{_error(each.recorded_error)}"


def _error(value: float | None) -> str:
    return "" if value is None else f" ± {value:.4f}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 28 else f"...{line[-25:]}"
