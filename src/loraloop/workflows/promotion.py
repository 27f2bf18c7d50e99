"""From a trained adapter to a registered version, and past the gate or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.records import Verdict

if TYPE_CHECKING:
    from loraloop.gate.gate import Gate
    from loraloop.records import Manifest, Score, Version
    from loraloop.registry.mlflow import MlflowRegistry

RANDOM_BASE = Verdict(False, "a base with random weights is for benchmarks and never registered", {})
SAME_ADAPTER = Verdict(True, "it is the champion, trained again to the same weights", {})
Rescore = Callable[["Version"], "Score | None"]
"""Scores an earlier version on the candidate's held-out rows; ``None`` if that cannot be done."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What the registry and the gate made of an adapter; without a version it was not registered."""

    version: Version | None
    verdict: Verdict

    def tags(self) -> dict[str, str]:
        """Tags for the run that trained the adapter."""
        tags = {"gate": "passed" if self.verdict.passed else "refused", "gate.reason": self.verdict.reason}
        return tags | ({"registry.version": f"{self.version.name}/{self.version.number}"} if self.version else {})


def promote_if_passed(
    registry: MlflowRegistry,
    gate: Gate,
    adapter: Path,
    manifest: Manifest,
    scores: tuple[Score, Score],
    run: str | None,
    rescore: Rescore,
) -> Promotion:
    """Register the adapter as candidate and, if the gate passes it, promote it to champion.

    Args:
        registry: Where versions are kept.
        gate: What decides.
        adapter: Folder in PEFT's layout.
        manifest: What the adapter is.
        scores: Of the adapter and of its base, on the same held-out rows.
        run: Id of the run that trained it.
        rescore: Called with the current champion.
    """
    if manifest.base.weights == "random":
        return Promotion(None, RANDOM_BASE)
    champion = registry.champion()
    version = registry.register(adapter, manifest, run)
    if champion is not None and champion.number == version.number:
        return Promotion(version, SAME_ADAPTER)
    verdict = _decide(gate, scores, champion, rescore)
    registry.record("gate", version.number, verdict.reason, dict(verdict.numbers))
    if verdict.passed:
        promoted = registry.promote(version.number, "champion", verdict.reason)
        version = replace(promoted, created=version.created)
    return Promotion(version, verdict)


def register_if_passed(
    registry: MlflowRegistry,
    gate: Gate,
    adapter: Path,
    manifest: Manifest,
    scores: tuple[Score, Score],
    run: str | None,
    rescore: Rescore,
) -> Promotion:
    """Register the adapter as candidate if the gate passes it, and promote nothing.

    Arguments are those of :func:`promote_if_passed`.
    """
    if manifest.base.weights == "random":
        return Promotion(None, RANDOM_BASE)
    champion = registry.champion()
    if champion is not None and champion.manifest.weights_sha256 == manifest.weights_sha256:
        return Promotion(replace(champion, created=False), SAME_ADAPTER)
    verdict = _decide(gate, scores, champion, rescore)
    version = registry.register(adapter, manifest, run) if verdict.passed else None
    if version:
        registry.record("gate", version.number, verdict.reason, dict(verdict.numbers))
    return Promotion(version, verdict)


def _decide(gate: Gate, scores: tuple[Score, Score], champion: Version | None, rescore: Rescore) -> Verdict:
    if champion is None or "champion" not in gate.against:
        return gate.decide(*scores)
    current = rescore(champion)
    if current is None:
        name = champion.manifest.base.name
        return Verdict(
            False,
            f"the champion, version {champion.number} on {name}, has no score on these held-out rows: promote by hand "
            "(stage=promote), or register these adapters under another name with registry.name=NAME",
            {},
        )
    return gate.decide(*scores, current)
