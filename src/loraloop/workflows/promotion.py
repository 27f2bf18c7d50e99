"""From a trained adapter to a registered version, and past the gate or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import paired
from loraloop.errors import AliasMovedError, ArtefactError, DataError, ModelError, TrackingError
from loraloop.records import Verdict

if TYPE_CHECKING:
    from loraloop.gate.gate import Gate
    from loraloop.protocols import Tracker
    from loraloop.records import Manifest, Score, Version
    from loraloop.registry.mlflow import MlflowRegistry

RANDOM_BASE = Verdict(False, "a base with random weights is for benchmarks and never registered", {})
SAME_ADAPTER = Verdict(True, "it is the champion, trained again to the same weights", {})

ANSWERS = "evaluation.max_new_tokens"
"""The parameter of a run that decides where its answers were cut."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained adapter that may become a version.

    Attributes:
        adapter: Folder in PEFT's layout.
        manifest: What the adapter is.
        score: On the held-out rows.
        base: Its base's score on the same rows.
        run: Id of the run that trained it.
        rescore: Gives a champion's score on the same rows; ``None`` if that cannot be done.
    """

    adapter: Path
    manifest: Manifest
    score: Score
    base: Score
    run: str | None
    rescore: Callable[[Version], Score | None]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What the registry and the gate made of an adapter; without a version it was not registered."""

    version: Version | None
    verdict: Verdict

    def tags(self) -> dict[str, str]:
        """Tags for the run that trained the adapter."""
        tags = {"gate": "passed" if self.verdict.passed else "refused", "gate.reason": self.verdict.reason}
        return tags | ({"registry.version": f"{self.version.name}/{self.version.number}"} if self.version else {})


def of_run(run: str, tracker: Tracker) -> Candidate:
    """The adapter of an earlier run; a champion has the score of its own run, if that was on the same rows.

    Raises:
        DataError: The run holds no adapter.
        TrackingError: There is no such run.
    """
    from loraloop.evaluation import store
    from loraloop.registry import manifest as manifests

    folder = tracker.artifacts(run)
    if not (folder / "adapter").is_dir():
        raise DataError(f"run {run} holds no adapter: it did not finish, or was made by another stage")
    manifest = manifests.read(folder / "adapter")
    score, base = (store.read(folder / "evaluation" / name) for name in ("adapter", "base"))

    def rescore(champion: Version) -> Score | None:
        if champion.manifest.run_id is None:
            return None
        try:
            manifests.verify_adapter(manifest.base, champion.manifest)
            known = store.read(tracker.artifacts(champion.manifest.run_id) / "evaluation" / "adapter")
        except (ModelError, TrackingError, DataError):
            return None
        answered = [tracker.read(each).get("params", {}).get(ANSWERS) for each in (run, champion.manifest.run_id)]
        return known if answered[0] == answered[1] and paired.same_rows(score, known) else None

    return Candidate(folder / "adapter", manifest, score, base, str(tracker.read(run)["id"]), rescore)


def promote_if_passed(registry: MlflowRegistry, gate: Gate, candidate: Candidate) -> Promotion:
    """Register the adapter as candidate and, if the gate passes it, promote it to champion.

    It is judged again if another version became champion meanwhile. Where the loop rolls out versions of the model, it
    stays candidate beside a champion: a rollout decides.
    """
    if candidate.manifest.base.weights == "random":
        return Promotion(None, RANDOM_BASE)
    version = registry.register(candidate.adapter, candidate.manifest, candidate.run)
    while True:
        champion = registry.champion()
        if champion is not None and champion.number == version.number:
            return Promotion(version, SAME_ADAPTER)
        verdict = _decide(registry, gate, candidate, champion)
        registry.record("gate", version.number, verdict.reason, dict(verdict.numbers))
        if not verdict.passed:
            return Promotion(version, verdict)
        role = registry.rollout_role() if champion else None
        if role is not None:
            return Promotion(version, _to_roll_out(version, role, verdict))
        try:
            expected = champion.number if champion else 0
            promoted = registry.promote(version.number, registry.serve_alias, verdict.reason, expected=expected)
        except AliasMovedError:
            continue
        return Promotion(replace(promoted, created=version.created), verdict)


def register_if_passed(registry: MlflowRegistry, gate: Gate, candidate: Candidate) -> Promotion:
    """Register the adapter as candidate if the gate passes it, and promote nothing."""
    if candidate.manifest.base.weights == "random":
        return Promotion(None, RANDOM_BASE)
    champion = registry.champion()
    if champion is not None and champion.manifest.weights_sha256 == candidate.manifest.weights_sha256:
        return Promotion(replace(champion, created=False), SAME_ADAPTER)
    verdict = _decide(registry, gate, candidate, champion)
    version = registry.register(candidate.adapter, candidate.manifest, candidate.run) if verdict.passed else None
    if version:
        registry.record("gate", version.number, verdict.reason, dict(verdict.numbers))
    return Promotion(version, verdict)


def _decide(registry: MlflowRegistry, gate: Gate, candidate: Candidate, champion: Version | None) -> Verdict:
    try:
        registry.require_servable(candidate.adapter, "the adapter")
    except ArtefactError as error:
        return Verdict(False, f"no server would load it: {error}", {})
    if champion is None or "champion" not in gate.against:
        return gate.decide(candidate.score, candidate.base)
    current = candidate.rescore(champion)
    if current is None:
        name = champion.manifest.base.name
        return Verdict(
            False,
            f"the champion, version {champion.number} on {name}, has no score on these held-out rows: promote by hand "
            "(stage=promote), or register these adapters under another name with registry.name=NAME",
            {},
        )
    return gate.decide(candidate.score, candidate.base, current)


def _to_roll_out(version: Version, role: str, verdict: Verdict) -> Verdict:
    return replace(
        verdict,
        reason=f"{verdict.reason}; the loop rolls out versions of {version.name} for {role}, so it stays candidate. To "
        f"try it on a share of the sessions: loraloop stage=rollout role={role} version={version.number}",
    )
