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
from loraloop.core.progress import Progress
from loraloop.errors import ArtefactError, ConfigError, DataError
from loraloop.publish import export as exports

if TYPE_CHECKING:
    from loraloop.protocols import Runtime, Tracker
    from loraloop.records import Generation, RuntimeAnswer, Version
    from loraloop.registry.mlflow import MlflowRegistry

ANSWERS = "evaluation.max_new_tokens"
SHOWN = 5
SLACK = 8
"""Tokens that an answer may be longer than the longest expected one, as where the adapter was measured."""
USUAL, FOUR_BITS = 0.98, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the adapter answered when it was measured, each answer up to ``most`` tokens."""

    answers: tuple[Generation, ...]
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first token of an answer that differs from the recorded text, which continues otherwise."""

    prompt: str
    token: int
    export: str
    recorded: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """A comparison; agreement and exact matches are shares, 0..1."""

    runtime: str
    versions: dict[str, str]
    machine: str
    measured: str
    rows: int
    agreement: float
    min_agreement: float
    exact_match: float
    exact_match_recorded: float
    load_seconds: float
    tokens_per_second: float
    bytes: int
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether enough answers are equal."""
        return self.agreement >= self.min_agreement


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
    near = [each for place in places for each in (place, *sorted(place.glob(f"{version.name}-v{version.number}-*")))]
    found = [each for each in dict.fromkeys(near) if (each / exports.FACTS).is_file()]
    fitting = [each for each in found if exports.read(each).form in forms]
    if len(fitting) == 1 or (fitting and path is None):
        return fitting[0]
    have = ", ".join(f"{each} ({exports.read(each).form})" for each in found) or "none"
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
    version: Version, folder: Path, runtime: Runtime, known: Recorded, min_agreement: float | None = None
) -> Parity:
    """Load the export and compare its answers.

    Raises:
        ArtefactError: The folder holds another version, or was altered after it was written.
    """
    export = exports.read(folder)
    if export.content != version.path.name:
        raise ArtefactError(
            f"{folder} holds {export.version} (adapter {export.content[:12]}), and {version.name} version "
            f"{version.number} is adapter {version.path.name[:12]}: name the export's version with adapter="
        )
    exports.verify(folder, export)
    least = min_agreement if min_agreement is not None else USUAL if export.trained_on == "none" else FOUR_BITS
    versions = runtime.versions()  # imports the libraries, which is no part of the loading time
    begin = time.perf_counter()
    with closing(runtime.open(folder)) as session:
        loaded = time.perf_counter() - begin
        _require_template(session.chat_template, export, folder)
        longest = max(session.count(each.expected) for each in known.answers) + 1 + SLACK
        begin = time.perf_counter()
        with Progress("asking the export", "answer", len(known.answers)) as progress:
            answers = []
            for each in known.answers:
                answers.append(session.answer(each.prompt, min(known.most, longest)))
                progress.advance(1)
        seconds = time.perf_counter() - begin
    made = _compare(known.answers, answers)
    return replace(
        made,
        runtime=type(runtime).__module__.rpartition(".")[2],
        versions=versions,
        min_agreement=float(least),
        load_seconds=round(loaded, 2),
        tokens_per_second=round(sum(len(each.tokens) for each in answers) / seconds, 1),
        bytes=sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()),
    )


def keep(made: Parity, version: Version, folder: Path, registry: MlflowRegistry) -> None:
    """Write the parity file beside the weights, and enter the result into the ledger and as the version's tag."""
    with atomic.write(folder / exports.PARITY.replace("*", made.runtime)) as stream:
        facts = asdict(made) | {"passed": made.passed}
        stream.write(json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    owner = replace(registry, name=version.name)
    numbers = {"agreement": made.agreement, "rows": made.rows, "runtime": made.runtime, "place": str(folder)}
    owner.record("parity", version.number, _summary(made), numbers)


def report(made: Parity, version: Version, folder: Path) -> None:
    """Print the comparison, and the first differing token of some rows."""
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    facts = {
        "export": f"{folder}, {console.size(made.bytes)}",
        "runtime": versions,
        "agreement": _summary(made),
        "exact match": f"{made.exact_match:.4f}, recorded {made.exact_match_recorded:.4f}",
        "speed": f"loaded in {made.load_seconds:.1f} s, {made.tokens_per_second:.1f} tokens/s",
    }
    console.facts(f"{version.name} version {version.number}", facts)
    if made.differences:
        rows = [[_short(d.prompt), str(d.token), repr(d.export), repr(d.recorded)] for d in made.differences]
        console.table("first differing token", ["prompt", "token", "export", "recorded"], rows, numbers=False)


def require(made: Parity, folder: Path) -> None:
    """Refuse an export that answers differently.

    Raises:
        ArtefactError: Too few answers are equal.
    """
    if not made.passed:
        raise ArtefactError(
            f"{folder} answers differently from its adapter: {_summary(made)}; do not use it. Export it in a wider "
            "publish.dtype, or accept less with min_agreement=SHARE"
        )


def _published(version: Version, registry: MlflowRegistry) -> Iterator[Path]:
    """Where a version was published, the last place first; places that are not on this machine hold nothing."""
    for entry in reversed(replace(registry, name=version.name).history()):
        if entry.event == "publish" and entry.version == version.number and "place" in entry.numbers:
            yield Path(str(entry.numbers["place"]))


def _require_template(found: str | None, export: exports.Export, folder: Path) -> None:
    from loraloop.core.hashing import sha256

    has = sha256(found.encode()) if found else None
    if has != export.chat_template_sha256:
        raise ArtefactError(
            f"the chat template in {folder} is not the one with which the adapter was trained: clients that send "
            "messages would ask it in another form; publish it again"
        )


def _compare(known: Sequence[Generation], answers: Sequence[RuntimeAnswer]) -> Parity:
    from loraloop.core.metrics import exact

    pairs = list(zip(known, answers, strict=True))
    other = [(each, answer) for each, answer in pairs if not _equal(each.answer, answer)]
    return Parity(
        runtime="",
        versions={},
        machine=f"{platform.machine()}, {platform.system()}, {os.cpu_count()} processors",
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        rows=len(pairs),
        agreement=1 - len(other) / len(pairs),
        min_agreement=0.0,
        exact_match=sum(exact(answer.text, each.expected) for each, answer in pairs) / len(pairs),
        exact_match_recorded=sum(exact(each.answer, each.expected) for each, _ in pairs) / len(pairs),
        load_seconds=0.0,
        tokens_per_second=0.0,
        bytes=0,
        differences=tuple(first_difference(each, answer) for each, answer in other[:SHOWN]),
    )


def _equal(recorded: str, answer: RuntimeAnswer) -> bool:
    # An answer that was cut may have been cut a token earlier or later where it was recorded.
    cut = not answer.ended and (recorded.startswith(answer.text) or answer.text.startswith(recorded))
    return recorded == answer.text or cut


def first_difference(known: Generation, answer: RuntimeAnswer) -> Difference:
    """Where an answer leaves the recorded one: the token's place from 0, its text, and how the recorded text goes on.

    An answer that ends too early differs by its end.
    """
    begin = ""
    for place, token in enumerate(answer.tokens):
        if not known.answer.startswith(begin + token):
            return Difference(
                prompt=known.prompt, token=place, export=token, recorded=known.answer[len(begin) :][:SHOWN_CHARACTERS]
            )
        begin += token
    rest = known.answer[len(begin) :][:SHOWN_CHARACTERS]
    return Difference(prompt=known.prompt, token=len(answer.tokens), export="(end)", recorded=rest)


SHOWN_CHARACTERS = 20


def _summary(made: Parity) -> str:
    equal = round(made.agreement * made.rows)
    return (
        f"{'passed' if made.passed else 'refused'}: {equal} of {made.rows} greedy answers equal through {made.runtime} "
        f"({made.agreement:.3f}, at least {made.min_agreement:g} asked)"
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 28 else f"...{line[-25:]}"
