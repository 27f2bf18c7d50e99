"""The training set of a retraining: corrected sessions and earlier examples, and golden rows to measure on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic
from loraloop.core.hashing import sha256
from loraloop.errors import ConfigError, DataError
from loraloop.records import Collection, Dataset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.feedback.store import Store
    from loraloop.policy import Mix, Policy
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Example, Row
    from loraloop.workflows.retraining.deployment import Deployment

SET = "set"
FACTS = "facts.json"
SIDES = ("corrective", "earlier", "golden")
SESSIONS = "sessions"
NAMED = 5
"""Rows that an error names."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A retraining's examples, read from disk.

    Attributes:
        facts: Rows per side, sessions that were learned from, and the golden set's path and SHA-256.
    """

    corrective: tuple[Example, ...]
    earlier: tuple[Example, ...]
    golden: tuple[Example, ...]
    facts: Mapping[str, Any]

    def rows(self, dataset: DatasetBuilder, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """The dataset: corrective and earlier rows are trained on, golden rows are held out."""
        from loraloop.dataset.builder import fingerprint

        train = tuple(dataset.render((*self.corrective, *self.earlier), tokenizer)[0])
        held_out = tuple(dataset.render(self.golden, tokenizer)[0])
        return Dataset(train=train, validation=held_out, fingerprint=fingerprint(train, held_out))


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores answers in the place of a source whose examples are on disk already."""

    source: Source

    def collect(self, ocr: Ocr | None) -> Collection:
        """No examples."""
        return Collection(())

    def correct(self, example: Example, answer: str) -> bool:
        """Whether an answer is right, by the rule of the source that the example came from."""
        from loraloop.source.sessions import Sessions

        if example.provenance.source == SESSIONS:
            return Sessions().correct(example, answer)
        return self.source.correct(example, answer)


@dataclass(frozen=True, slots=True)
class TrainingSetBuilder:
    """Builds the training set of a cycle.

    Attributes:
        folder: Holds the golden sets, ``golden/ROLE.jsonl``.
        store: The rated sessions.
        source: The source of the earlier examples.
        seed: Of the draws.
    """

    policy: Policy
    folder: Path
    store: Store
    source: Source
    ocr: Ocr
    dataset: DatasetBuilder
    seed: int

    def golden(self, role: str) -> Path:
        """The path of the role's golden set, which may not exist yet."""
        return self.policy.golden or self.folder / "golden" / f"{role}.jsonl"

    def check(self, deployment: Deployment) -> None:
        """Check the role's golden set.

        Raises:
            ConfigError: It is missing, is no file of examples, or was altered since a version was measured on it; the
                message says how to go on.
        """
        role = deployment.role
        path = self.golden(role)
        if self.policy.golden is not None and not path.is_file():
            raise ConfigError(f"policy.golden={path} does not exist: name a .jsonl file, or null to have one drawn")
        known = [
            entry.numbers["golden_sha256"]
            for entry in deployment.registry.history()
            if entry.numbers.get("golden_path") == self._place(role)
        ]
        if known and (not path.is_file() or sha256(path) != known[-1]):
            raise ConfigError(
                f"the golden set {path} is not the one that {role}'s versions were measured on (the ledger has "
                f"SHA-256 {known[-1][:12]}...): restore it, or name another file with policy.golden=FILE"
            )
        if path.is_file():
            _require_examples(path)

    def _place(self, role: str) -> str:
        """The golden set's path in the ledger, the same from every working folder and for every spelling."""
        path, folder = self.golden(role).resolve(), self.folder.resolve()
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    def prepare(self, cycle: Path, deployment: Deployment, tokenizer: PreTrainedTokenizerBase) -> TrainingSet:
        """The training set of a cycle: built as a whole, or read if an earlier process built it.

        Args:
            cycle: The cycle's folder.
            deployment: Whose sessions are learned from.
            tokenizer: The base's.

        Raises:
            DataError: Too few corrected sessions, or golden rows that would also be trained on.
        """
        role = deployment.role
        if not (cycle / SET).exists():
            corrective = self._corrective(deployment)
            built = self.dataset.build(self.source.collect(self.ocr), tokenizer)
            golden = self._golden(role, built)
            _refuse_overlap(self._rows(golden, tokenizer), self._rows(corrective, tokenizer), self.golden(role))
            known = {_question(row) for row in self._rows(golden, tokenizer)}
            earlier = [row.example for row in built.train if _question(row) not in known]
            self._write(cycle, role, (*mixed(corrective, earlier, self.policy.mix, self.seed), golden), len(corrective))
        return read(cycle)

    def shortage(self, deployment: Deployment) -> str | None:
        """Why there are too few corrected sessions to learn from; ``None`` if there are enough."""
        try:
            self._corrective(deployment)
        except DataError as error:
            return str(error)
        return None

    def _rows(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
        return self.dataset.render(examples, tokenizer)[0]

    def _corrective(self, deployment: Deployment) -> list[Example]:
        from loraloop.source.sessions import Sessions, reading

        sessions, _ = reading.read(self.store.database.url)
        part = Sessions(below=self.policy.below, min_positive_rating=5, use=("corrective",), min_corrective=0)
        verdicts = [one for one in part.judge(sessions) if deployment.owns(str(sessions[one.id].answered))]
        found = [example for one in verdicts for example in one.examples]
        if len(found) < self.policy.min_corrective:
            without = sum(one.fate == "quarantined" for one in verdicts)
            raise DataError(
                f"{len(found)} sessions of {deployment.role} rated below {self.policy.below} have an answer to learn "
                f"from, and at least {self.policy.min_corrective} are needed (policy.min_corrective); {without} more "
                "have no correction, no well-rated sibling and no rule: accept or write corrections with stage=review"
            )
        return found

    def _golden(self, role: str, built: Dataset) -> list[Example]:
        from loraloop.dataset import exports
        from loraloop.dataset.split import rank

        path = self.golden(role)
        if self.policy.golden is None and not path.exists():
            drawn = sorted((row.example for row in built.validation), key=lambda each: rank(each, self.seed))
            exports.save(drawn[: self.policy.golden_rows], path)
        return list(exports.load(path))

    def _write(self, cycle: Path, role: str, sides: Sequence[Sequence[Example]], distinct: int) -> None:
        from loraloop.dataset import exports

        with atomic.folder(cycle / SET) as beside:
            for side, examples in zip(SIDES, sides, strict=True):
                exports.save(examples, beside / f"{side}.jsonl")
            facts: dict[str, Any] = {side: len(examples) for side, examples in zip(SIDES, sides, strict=True)}
            facts |= {"sessions": distinct, "golden_path": self._place(role)}
            facts["golden_sha256"] = sha256(self.golden(role))
            (beside / FACTS).write_text(json.dumps(facts))


def mixed(
    corrective: Sequence[Example], earlier: Sequence[Example], mix: Mix, seed: int
) -> tuple[list[Example], list[Example]]:
    """Corrective and earlier examples in the shares of ``mix``: the corrective repeated, the earlier drawn by seed."""
    from loraloop.dataset.split import rank

    rows = min(mix.rows, floor(len(earlier) / mix.earlier)) if mix.earlier else mix.rows
    old = round(rows * mix.earlier)
    drawn = sorted(corrective, key=lambda each: rank(each, seed))
    repeated = [drawn[place % len(drawn)] for place in range(max(1, rows - old))]
    return repeated, sorted(earlier, key=lambda each: rank(each, seed))[:old]


def read(cycle: Path) -> TrainingSet:
    """The training set that was built in a cycle's folder."""
    from loraloop.dataset import exports

    facts = json.loads((cycle / SET / FACTS).read_text())
    corrective, earlier, golden = (exports.load(cycle / SET / f"{side}.jsonl") if facts[side] else () for side in SIDES)
    return TrainingSet(corrective, earlier, golden, facts)


def _require_examples(path: Path) -> None:
    from loraloop.dataset import exports

    try:
        rows = exports.load(path)
    except DataError as error:
        raise ConfigError(f"the golden set {path} cannot be read: {error}") from error
    if not rows:
        raise ConfigError(
            f"the golden set {path} holds no examples, and versions are measured on it: name another file with "
            "policy.golden=FILE"
        )


def _question(row: Row) -> str:
    from loraloop.dataset.similarity import normalise

    return normalise(row.prompt) or row.prompt


def _refuse_overlap(golden: Sequence[Row], corrective: Sequence[Row], path: Path) -> None:
    """Refuse a golden set with questions that the candidate would be trained on: they would not measure it."""
    places = {_question(row): number for number, row in enumerate(golden, 1)}
    asked = [(_question(row), row.example.provenance.session_id or "?") for row in corrective]
    both = {places[question]: session for question, session in asked if question in places}
    if both:
        named = [f"row {number} (session {session})" for number, session in sorted(both.items())]
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        raise DataError(
            f"{len(both)} golden rows of {path} would also be trained on: {', '.join(named[:NAMED])}{more}. Name a "
            "file without these rows, policy.golden=FILE, or reject the corrections of these sessions (stage=review)"
        )
