"""The training set of a retraining: corrected sessions and earlier examples, and golden rows to measure on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic
from loraloop.core.hashing import sha256
from loraloop.errors import ConfigError, DataError
from loraloop.records import Collection, Dataset
from loraloop.source import screening
from loraloop.workflows.retraining import recipes
from loraloop.workflows.retraining.overlap import apart

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.feedback.store import Store
    from loraloop.policy import Mix, Policy, Recipe
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Example, Row
    from loraloop.source.sessions.source import Labelled
    from loraloop.workflows.retraining.deployment import Deployment

SET = "set"
FACTS = "facts.json"
SIDES = ("corrective", "earlier", "golden")
SESSIONS = "sessions"
NAMED = 20
"""Sessions that the facts name."""


class ShortageError(DataError):
    """There are too few rows to learn from or to measure on; more sessions or another golden set mend that."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A retraining's examples, read from disk.

    Attributes:
        facts: What is learned by, and why (``learn``, ``learn_why``); rows per side; sessions that are learned from,
            that the mix has no place for (``sessions_beyond_mix``) and that ask what a golden row asks (``overlap``);
            and the golden set's path and SHA-256.
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

    def prepare(
        self,
        cycle: Path,
        deployment: Deployment,
        tokenizer: PreTrainedTokenizerBase,
        min_golden: int,
        misfit: Callable[[], str | None],
    ) -> TrainingSet:
        """The training set of a cycle: built as a whole, or read if an earlier process built it.

        Corrected sessions and earlier examples that ask what a golden row asks are left out, and counted in the facts.

        Args:
            cycle: The cycle's folder.
            deployment: Whose sessions are learned from.
            tokenizer: The base's.
            min_golden: Fewest golden rows.
            misfit: Why training cannot go on with the champion; ``None`` if it can.

        Raises:
            ShortageError: Too few corrected sessions or golden rows.
            DataError: The source has nothing usable.
        """
        if not (cycle / SET).exists():
            corrective = self._corrective(deployment)
            built = self.dataset.build(screening.collect(self.source, self.ocr), tokenizer)
            golden = self._golden(deployment.role, built)
            usable, overlap = self._apart(golden, corrective, tokenizer, min_golden)
            earlier = [row.example for row in apart(self._rows(golden, tokenizer), built.train)[0]]
            learn = recipes.settle(self.policy, len(usable), misfit)
            alone = learn[0] != "sft"  # goes on with the champion, which has learned the earlier ones
            sides = (usable, [], golden) if alone else (*mixed(usable, earlier, self.policy.mix, self.seed), golden)
            self._write(cycle, deployment.role, sides, usable, overlap, learn)
        return read(cycle)

    def shortage(self, deployment: Deployment, tokenizer: PreTrainedTokenizerBase, min_golden: int) -> str | None:
        """Why there are too few corrected sessions or golden rows; ``None`` if there are enough.

        A golden set that is not drawn yet is taken to be large enough.
        """
        from loraloop.dataset import exports

        path = self.golden(deployment.role)
        try:
            corrective = self._corrective(deployment)
            if path.exists():
                self._apart(exports.load(path), corrective, tokenizer, min_golden)
        except ShortageError as error:
            return str(error)
        return None

    def _rows(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
        return self.dataset.render(examples, tokenizer)[0]

    def _apart(
        self, golden: Sequence[Example], corrective: Sequence[Example], tokenizer: PreTrainedTokenizerBase, least: int
    ) -> tuple[list[Example], list[str]]:
        """The corrected sessions that ask what no golden row asks, and the ids of the others."""
        if len(golden) < least:
            raise ShortageError(
                f"the golden set has {len(golden)} rows, and a verdict needs gate.min_rows={least}: name a larger file "
                "with policy.golden=FILE, lower gate.min_rows, or enlarge `source` and remove what was drawn from it "
                f"({self.folder}/golden)"
            )
        rows = apart(self._rows(golden, tokenizer), self._rows(corrective, tokenizer))
        kept, dropped = ([row.example for row in side] for side in rows)
        if len(kept) < self.policy.min_corrective:
            raise ShortageError(
                f"{len(_sessions(kept))} corrected sessions are left to learn from, and at least "
                f"{self.policy.min_corrective} are needed (policy.min_corrective): {len(_sessions(dropped))} more ask "
                "what golden rows ask, which measure the candidate; wait for other sessions, or name a file without "
                "these rows with policy.golden=FILE"
            )
        return kept, _sessions(dropped)

    def _corrective(self, deployment: Deployment) -> list[Example]:
        """What the recipe in force makes of the role's rated sessions."""
        recipe, below, role = recipes.chosen(self.policy), self.policy.below, deployment.role
        found, mine, secret = self._taught(recipe, deployment)
        least = self.policy.min_corrective
        if missing := recipes.lacking(recipe, found, least):
            raise ShortageError(
                f"{len(_sessions(found))} sessions of {role} {recipes.unit(recipe, below)}{secret}; {missing} "
                f"(policy.min_corrective={least}){self._left(role, mine)}{self._others(recipe, deployment)}"
            )
        return found

    def _taught(self, recipe: Recipe, deployment: Deployment) -> tuple[list[Example], list[Labelled], str]:
        """A recipe's examples of the role's sessions without secrets, what became of each, and a word on secrets."""
        read = recipes.read(recipe, self.store.database.url, self.policy.below, reviewed=self.store.reviewed)
        mine = [one for one in read.labelled if deployment.owns(str(read.sessions[one.id].answered))]
        taught = Collection(tuple(each for one in mine for each in one.examples))
        part = recipes.source(recipe, self.policy.below)
        secrets = getattr(self.source, "secrets", part.secrets)
        strict = secrets if secrets in ("mask", "quarantine") else part.secrets
        screened = screening.screen(taught, strict, emails=getattr(self.source, "emails", False))
        left_out = len(screened.quarantined)
        if left_out:
            _log.warning("%d sessions of %s are not learned from: they hold secrets", left_out, deployment.role)
        return list(screened.examples), mine, f", {left_out} hold secrets" * bool(left_out)

    def _others(self, recipe: Recipe, deployment: Deployment) -> str:
        """With ``policy.learn=auto``, the recipes that would have enough to learn from, and why none is taken."""
        if self.policy.learn != "auto":
            return ""
        others = [each for each in recipes.TRAINED if each != recipe]
        found = {each: self._taught(each, deployment)[0] for each in others}
        enough = {
            each: made for each, made in found.items() if not recipes.lacking(each, made, self.policy.min_corrective)
        }
        told = [
            f"policy.learn={each} trainer={each} would learn from {len(made)} examples" for each, made in enough.items()
        ]
        return f"; {' and '.join(told)}; policy.learn=auto does not do so: {recipes.MEASURED}" if told else ""

    def _left(self, role: str, judged: Sequence[Labelled]) -> str:
        """What keeps the other badly rated sessions from being learned from, and what a person can do about it."""
        proposed = {each.session for each in self.store.proposals()}
        left = [one for one in judged if one.fate == "quarantined"]
        waiting = sum(one.waiting is not None or one.id in proposed for one in left)
        said = []
        if waiting:
            command = f"loraloop stage=review below={self.policy.below}"
            said.append(f"; for {waiting} more a correction waits for review: {command}")
        if len(left) > waiting:
            command = "loraloop stage=feedback session=ID correction=..."
            said.append(
                f"; {len(left) - waiting} more have no correction, no well-rated sibling and no rule: {command}"
            )
        return "".join(said)

    def _golden(self, role: str, built: Dataset) -> list[Example]:
        from loraloop.dataset import exports
        from loraloop.dataset.split import rank

        path = self.golden(role)
        if self.policy.golden is None and not path.exists():
            drawn = sorted((row.example for row in built.validation), key=lambda each: rank(each, self.seed))
            exports.save(drawn[: self.policy.golden_rows], path)
        return list(exports.load(path))

    def _write(
        self,
        cycle: Path,
        role: str,
        sides: Sequence[Sequence[Example]],
        usable: Sequence[Example],
        overlap: Sequence[str],
        learn: tuple[Recipe, str],
    ) -> None:
        from loraloop.dataset import exports

        with atomic.folder(cycle / SET) as beside:
            for side, examples in zip(SIDES, sides, strict=True):
                exports.save(examples, beside / f"{side}.jsonl")
            facts: dict[str, Any] = {side: len(examples) for side, examples in zip(SIDES, sides, strict=True)}
            sessions = len(_sessions(sides[0]))
            facts |= {"sessions": sessions, "sessions_beyond_mix": len(_sessions(usable)) - sessions}
            facts |= {"overlap": len(overlap), "overlap_sessions": list(overlap[:NAMED])}
            facts |= {"learn": learn[0], "learn_why": learn[1]}
            facts |= {"golden_path": self._place(role), "golden_sha256": sha256(self.golden(role))}
            (beside / FACTS).write_text(json.dumps(facts))


def mixed(
    corrective: Sequence[Example], earlier: Sequence[Example], mix: Mix, seed: int
) -> tuple[list[Example], list[Example]]:
    """Corrective and earlier examples in the shares of ``mix``, drawn by seed.

    Corrective examples are repeated to fill their share. Where there are more of them than their share has rows, the
    rest has no place.
    """
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


def _sessions(examples: Sequence[Example]) -> list[str]:
    """The sessions of examples, each once: one may be an answer that was bad and a correction that is good."""
    return list(dict.fromkeys(str(each.provenance.session_id) for each in examples))


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
