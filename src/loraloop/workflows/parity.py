"""Whether an export answers as its adapter did: the same prompts, greedily, in the export's own runtime."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import atomic
from loraloop.core.progress import Progress
from loraloop.errors import ArtefactError, DataError
from loraloop.publish import export as exports
from loraloop.publish import template
from loraloop.records import Parity
from loraloop.workflows import comparison, export_folder
from loraloop.workflows.parity_report import FOUR_BITS, USUAL, summary
from loraloop.workflows.sample_chats import CHATS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.protocols import Runtime, RuntimeSession, Tracker
    from loraloop.records import Export, Generation, RuntimeAnswer, Version
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.workflows.version_base import VersionBase

log = logging.getLogger(__name__)
ANSWERS = "evaluation.max_new_tokens"
SLACK = 8
"""Tokens that an answer may be longer than the longest expected one, as where the adapter was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the adapter answered when it was measured, each answer up to ``most`` tokens."""

    answers: tuple[Generation, ...]
    most: int


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
            "others with: it was trained elsewhere, or with tracker=none"
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
    log.info("loading the export: %s", ", ".join(f"{name} {number}" for name, number in versions.items()))
    begin = time.perf_counter()
    with closing(runtime.open(folder, export, base)) as session:
        loaded = time.perf_counter() - begin
        versions |= session.computes()
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


def require_loads(version: Version, folder: Path, export: Export, runtime: Runtime, base: VersionBase) -> None:
    """Load an export that cannot be compared, for no answers of its adapter are recorded.

    Raises:
        ArtefactError: The runtime cannot load it, or its chat template gives other tokens than the training's.
    """
    with closing(runtime.open(folder, export, base)) as session:
        _require_template(session, version, base.tokenizer(), folder)


def write(made: Parity, folder: Path) -> None:
    """Write a comparison beside the weights, in place of an earlier one in the same runtime."""
    with atomic.write(folder / exports.PARITY.replace("*", made.runtime)) as stream:
        facts = asdict(made) | {"passed": made.passed}
        stream.write(json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def keep(
    made: Parity, version: Version, folder: Path, registry: MlflowRegistry, tracker: Tracker, speaks: bool = True
) -> None:
    """Keep a comparison: beside the weights, in manifest, ledger and tag of the version, and with its MLflow run.

    One that passed with fewer rows than an earlier one of the same files says less, and takes its place nowhere.

    Args:
        made: The comparison.
        version: Of which the folder is an export.
        folder: The export.
        registry: Of the version.
        tracker: Of its run.
        speaks: Whether it is told of the version; else it lies beside the weights alone.
    """
    there = [each for each in export_folder.measured(folder) if each.name == made.name and each.passed]
    more = max((each.rows for each in there), default=0)
    if made.passed and more > made.rows:
        log.warning(
            "%d rows are fewer than the %d of an earlier comparison, which stays the one that counts", made.rows, more
        )
        return
    write(made, folder)
    if not speaks:
        log.warning("the ledger does not know the files in %s: what they answer is not told of the version", folder)
        return
    owner = replace(registry, name=version.name)
    numbers = {"agreement": made.agreement, "rows": made.rows, "runtime": made.runtime, "place": str(folder)}
    owner.record("parity", version.number, f"{made.form} in {made.dtype}: {summary(made)}", numbers)
    owner.note_parity(version, made)
    run = version.manifest.run_id
    if run is None:
        return
    measured = {f"parity/{made.name}/agreement": made.agreement}
    measured |= {f"parity/{made.name}/{name}": each.value for name, each in made.scores.items()}
    with tracker.start("", resume=run) as tracked:
        tracked.metrics(measured)
        tracked.tags({"parity": f"{made.form} in {made.dtype}: {summary(made)}"})


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

    if not template.is_chat(version.manifest):
        return
    refusals: list[ModelError] = []
    for messages, tools in CHATS:
        asked = read_all(messages)
        try:
            text = prompts.ask(version.manifest.template, tokenizer, asked, tools)
        except ModelError as error:  # the template has no place for tools or a system's words, here as there
            refusals.append(error)
            continue
        found, wanted = session.chat(messages, tools), tokenizer(text).input_ids
        if found != wanted:
            raise ArtefactError(
                f"the chat template in {folder} gives other tokens than dataset.template={version.manifest.template} "
                f"in the training ({len(found)} and {len(wanted)} for {messages[-1]['content']!r}): clients that send "
                "messages would ask it in another form. Publish it again; if that does not help, send rendered prompts "
                "to /v1/completions, or train with dataset.template=chatml"
            )
    if len(refusals) == len(CHATS):
        raise ArtefactError(f"the chat template that travels with {folder} renders no conversation: {refusals[0]}")
