"""What a retraining learns from and is measured on: corrected sessions, earlier examples, golden rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
    """A retraining's examples as they lie on disk, and what they were made of."""

    corrective: tuple[Example, ...]
    earlier: tuple[Example, ...]
    golden: tuple[Example, ...]
    facts: Mapping[str, Any]

    def rows(self, dataset: DatasetBuilder, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Corrective and earlier rows to train on, the golden ones held out."""
        from loraloop.dataset.builder import fingerprint

        lessons, _ = dataset.render((*self.corrective, *self.earlier), tokenizer)
        golden, _ = dataset.render(self.golden, tokenizer)
        train, held_out = tuple(lessons), tuple(golden)
        return Dataset(train=train, validation=held_out, fingerprint=fingerprint(train, held_out))


@dataclass(frozen=True, slots=True)
class Scorer:
    """A source that is on disk already: what is left of it is how an answer is marked."""

    source: Source

    def collect(self, ocr: Ocr | None) -> Collection:
        """Nothing more."""
        return Collection(())

    def correct(self, example: Example, answer: str) -> bool:
        """By the rule of the source that the example came from."""
        from loraloop.source.sessions import Sessions

        if example.provenance.source == SESSIONS:
            return Sessions().correct(example, answer)
        return self.source.correct(example, answer)


@dataclass(frozen=True, slots=True)
class TrainingSetBuilder:
    """Makes lessons.

    Attributes:
        folder: Where golden sets lie, ``golden/ROLE.jsonl``.
        store: The rated sessions.
        source: Of the earlier examples.
        seed: Draws them.
    """

    policy: Policy
    folder: Path
    store: Store
    source: Source
    ocr: Ocr
    dataset: DatasetBuilder
    seed: int

    def golden(self, role: str) -> Path:
        """Where the role's golden set is, or will be."""
        return self.policy.golden or self.folder / "golden" / f"{role}.jsonl"

    def check(self, line: Deployment) -> None:
        """Refuse a golden set that is missing or no file of examples, or was altered since a candidate met it.

        Raises:
            ConfigError: It is; the message says how to go on.
        """
        path = self.golden(line.role)
        if self.policy.golden is not None and not path.is_file():
            raise ConfigError(f"policy.golden={path} does not exist: name a .jsonl file, or null to have one drawn")
        known = [
            entry.numbers["golden_sha256"]
            for entry in line.registry.history()
            if entry.numbers.get("golden_path") == self._place(line.role)
        ]
        if known and (not path.is_file() or sha256(path) != known[-1]):
            raise ConfigError(
                f"the golden set {path} is not the one that {line.role}'s versions were measured on (the ledger has "
                f"SHA-256 {known[-1][:12]}...): restore it, or begin with another one, policy.golden=FILE"
            )
        if path.is_file():
            _require_examples(path)

    def _place(self, role: str) -> str:
        """What the ledger calls the golden set, from whatever folder and by whatever path it is named."""
        path, folder = self.golden(role).resolve(), self.folder.resolve()
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    def prepare(
        self, cycle: Path, role: str, mine: Callable[[str], bool], tokenizer: PreTrainedTokenizerBase
    ) -> TrainingSet:
        """The lessons of a cycle, made whole or read again.

        Args:
            cycle: The cycle's folder.
            role: Whose sessions.
            mine: Whether a version that answered a session is of the role's model.
            tokenizer: The base's.

        Raises:
            DataError: Too few sessions to learn from, or golden rows that are too few or also trained on.
        """
        if not (cycle / SET).exists():
            corrective = self._corrective(role, mine)
            built = self.dataset.build(self.source.collect(self.ocr), tokenizer)
            golden = self._golden(role, built)
            _refuse_overlap(self._rows(golden, tokenizer), self._rows(corrective, tokenizer), self.golden(role))
            known = {_asked(row) for row in self._rows(golden, tokenizer)}
            earlier = [row.example for row in built.train if _asked(row) not in known]
            self._write(cycle, role, (*mixed(corrective, earlier, self.policy.mix, self.seed), golden), len(corrective))
        return read(cycle)

    def short(self, role: str, mine: Callable[[str], bool]) -> str | None:
        """Why there is too little to learn from, if so."""
        try:
            self._corrective(role, mine)
        except DataError as error:
            return str(error)
        return None

    def _rows(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
        return self.dataset.render(examples, tokenizer)[0]

    def _corrective(self, role: str, mine: Callable[[str], bool]) -> list[Example]:
        from loraloop.source.sessions import Sessions, database

        sessions, _ = database.read(self.store.database.url)
        part = Sessions(below=self.policy.below, min_positive_rating=5, use=("corrective",), min_corrective=0)
        verdicts = [one for one in part.judge(sessions) if mine(str(sessions[one.id].lora_version))]
        found = [example for one in verdicts for example in one.examples]
        if len(found) < self.policy.min_corrective:
            without = sum(one.fate == "quarantined" for one in verdicts)
            raise DataError(
                f"{len(found)} sessions of {role} rated below {self.policy.below} have an answer to learn from, and at "
                f"least {self.policy.min_corrective} are needed (policy.min_corrective); {without} more have no "
                "correction, no well-rated sibling and no rule: accept or write corrections with stage=review"
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
    """Corrective and earlier examples in the shares of ``mix``: the former repeated, the latter a seeded draw."""
    from loraloop.dataset.split import rank

    rows = min(mix.rows, floor(len(earlier) / mix.earlier)) if mix.earlier else mix.rows
    old = round(rows * mix.earlier)
    drawn = sorted(corrective, key=lambda each: rank(each, seed))
    repeated = [drawn[place % len(drawn)] for place in range(max(1, rows - old))]
    return repeated, sorted(earlier, key=lambda each: rank(each, seed))[:old]


def read(cycle: Path) -> TrainingSet:
    """The lessons of a cycle that were prepared before."""
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
        raise ConfigError(f"the golden set {path} holds no examples: nothing could be measured on it")


def _asked(row: Row) -> str:
    from loraloop.dataset.similarity import normalise

    return normalise(row.prompt) or row.prompt


def _refuse_overlap(golden: Sequence[Row], lessons: Sequence[Row], path: Path) -> None:
    """A candidate that has seen the question is not measured by it."""
    places = {_asked(row): number for number, row in enumerate(golden, 1)}
    both = {places[_asked(row)]: row.example.provenance.session_id or "?" for row in lessons if _asked(row) in places}
    if both:
        named = [f"row {number} (session {session})" for number, session in sorted(both.items())]
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        raise DataError(
            f"{len(both)} golden rows of {path} would also be trained on: {', '.join(named[:NAMED])}{more}. Take these "
            "rows out into another file, policy.golden=FILE, or reject the corrections of these sessions (stage=review)"
        )
