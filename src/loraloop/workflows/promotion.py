"""From a trained adapter to a registered version, and past the gate or not."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import paired
from loraloop.core.overrides import assign, command
from loraloop.errors import AliasMovedError, ArtefactError, DataError, ModelError, TrackingError
from loraloop.gate.gate import WORSE
from loraloop.gate.general import FORGOT
from loraloop.records import Verdict
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.workflows import description

if TYPE_CHECKING:
    from loraloop.gate.gate import Gate
    from loraloop.protocols import Tracker
    from loraloop.records import Manifest, Score, Version

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
        few_shot: The base's score with examples; ``None`` if that was not measured.
    """

    adapter: Path
    manifest: Manifest
    score: Score
    base: Score
    run: str | None
    rescore: Callable[[Version], Score | None]
    few_shot: Score | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """What the registry and the gate made of an adapter.

    Attributes:
        version: ``None`` if it was not registered.
        verdict: What the gate said.
        unregistered: What is printed in place of a version.
    """

    version: Version | None
    verdict: Verdict
    unregistered: str = "not registered"

    def tags(self) -> dict[str, str]:
        """Tags for the run that trained the adapter."""
        tags = {"gate": "passed" if self.verdict.passed else "refused", "gate.reason": self.verdict.reason}
        if worse := self.verdict.numbers.get(WORSE):
            tags[f"gate.{WORSE}"] = ", ".join(worse)
        if forgot := self.verdict.numbers.get(FORGOT):
            tags[f"gate.{FORGOT}"] = ", ".join(forgot)
        return tags | ({"registry.version": f"{self.version.name}/{self.version.number}"} if self.version else {})


def of_run(run: str, tracker: Tracker) -> Candidate:
    """The adapter of an earlier run; a champion has the score of its own run, if that was on the same rows.

    Raises:
        DataError: The run holds no adapter.
        TrackingError: There is no such run.
    """
    folder = tracker.artifacts(run)
    if not (folder / "adapter").is_dir():
        raise DataError(f"run {run} holds no adapter: it did not finish, or was made by another stage")
    return of_folder(folder, str(tracker.read(run)["id"]), tracker)


def of_folder(folder: Path, run: str | None, tracker: Tracker, champion_sha256: str | None = None) -> Candidate:
    """The adapter in a job's folder or among a run's artifacts.

    Args:
        folder: Holds ``adapter`` and ``evaluation``.
        run: Id of the run that trained it; ``None`` if that was not tracked.
        tracker: Keeps the run of the champion.
        champion_sha256: Weights of the champion whose score is in ``evaluation/champion``, if there is one.
    """
    from loraloop.evaluation import store
    from loraloop.registry import manifest as manifests

    manifest = manifests.read(folder / "adapter")
    score, base = (store.read(folder / "evaluation" / name) for name in ("adapter", "base"))
    few_shot = store.read(examples) if (examples := folder / "evaluation" / "few_shot").is_dir() else None

    def rescore(champion: Version) -> Score | None:
        if champion_sha256 == champion.manifest.weights_sha256:
            return store.read(folder / "evaluation" / "champion")
        if run is None or champion.manifest.run_id is None:
            return None
        try:
            manifests.verify_adapter(manifest.base, champion.manifest)
            known = store.read(tracker.artifacts(champion.manifest.run_id) / "evaluation" / "adapter")
        except (ModelError, TrackingError, DataError):
            return None
        answered = [tracker.read(each).get("params", {}).get(ANSWERS) for each in (run, champion.manifest.run_id)]
        return known if answered[0] == answered[1] and paired.same_rows(score, known) else None

    return Candidate(folder / "adapter", manifest, score, base, run, rescore, few_shot)


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


def register_only(registry: MlflowRegistry, gate: Gate, candidate: Candidate) -> Promotion:
    """Register the adapter as candidate, whatever the gate says, and promote nothing."""
    judged = judge(registry, gate, candidate)
    if judged.version or candidate.manifest.base.weights == "random":
        return judged
    version = registry.register(candidate.adapter, candidate.manifest, candidate.run)
    registry.record("gate", version.number, judged.verdict.reason, dict(judged.verdict.numbers))
    return Promotion(version, judged.verdict)


def judge(registry: MlflowRegistry, gate: Gate, candidate: Candidate) -> Promotion:
    """Ask the gate and register nothing; the version is the champion's if the adapter has the same weights."""
    if candidate.manifest.base.weights == "random":
        return Promotion(None, RANDOM_BASE)
    champion = registry.champion()
    if champion is not None and champion.manifest.weights_sha256 == candidate.manifest.weights_sha256:
        return Promotion(replace(champion, created=False), SAME_ADAPTER)
    verdict = _decide(registry, gate, candidate, champion)
    return Promotion(None, verdict, "not registered: the best run of the multirun is, at its end")


def note(made: Promotion, run: str | None, registry: MlflowRegistry, tracker: Tracker) -> None:
    """Tag an earlier run with what became of its adapter, and add the version to its description."""
    if run is None:
        return
    before = tracker.read(run)["tags"]
    with tracker.start("", resume=run) as tracked:
        tracked.tags(made.tags())
        line = description.registered(made.version, registry) if made.version else ""
        if line and line not in (text := before.get(description.TAG, "")):
            tracked.tags({description.TAG: f"{line}\n{text}".strip()})


def promote_command(registry: MlflowRegistry, version: Version) -> str | None:
    """The command that makes a version champion, from any folder; where the loop rolls out, the one that begins that.

    Returns:
        ``None`` for a version that is the champion, or that no server would load.
    """
    if registry.serve_alias in version.aliases:
        return None
    try:
        registry.require_servable(version.path, "the adapter")
    except ArtefactError:
        return None
    role = registry.rollout_role() if registry.champion() else None
    if role is not None:
        leads = assign(f"server.roles.{role}", f"{registry.name}@{registry.serve_alias}")  # it may be the command's own
        overrides = ["stage=rollout", assign("role", role), leads, f"version={version.number}"]
        overrides += [assign("folder", str(registry.folder))] if registry.folder != MlflowRegistry().folder else []
        own = ("registry.name=", "registry.folder=")
        overrides += [each for each in _own_settings(registry) if not each.startswith(own)]
    else:
        overrides = ["stage=promote", f"version={version.number}", *_own_settings(registry)]
    return f"cd {shlex.quote(str(Path.cwd()))} && {command(overrides)}"


def _own_settings(registry: MlflowRegistry) -> list[str]:
    """The overrides that make this registry of the default one."""
    default = MlflowRegistry()
    pairs = ((each.name, getattr(registry, each.name), getattr(default, each.name)) for each in fields(registry))
    return [
        f"registry.{key}={value}" if isinstance(value, int) else assign(f"registry.{key}", str(value))
        for key, value, usual in pairs
        if value != usual
    ]


def _decide(registry: MlflowRegistry, gate: Gate, candidate: Candidate, champion: Version | None) -> Verdict:
    try:
        registry.require_servable(candidate.adapter, "the adapter")
    except ArtefactError as error:
        return Verdict(False, f"no server would load it: {error}", {})
    if champion is None or "champion" not in gate.must_beat:
        return gate.decide(
            candidate.score, candidate.base, few_shot=candidate.few_shot, general=candidate.manifest.general
        )
    current = candidate.rescore(champion)
    if current is None:
        name = champion.manifest.base.name
        return Verdict(
            False,
            f"the champion, version {champion.number} on {name}, has no score on these held-out rows: promote by hand "
            "(stage=promote), or register these adapters under another name with registry.name=NAME",
            {},
        )
    return gate.decide(candidate.score, candidate.base, current, candidate.few_shot, candidate.manifest.general)


def _to_roll_out(version: Version, role: str, verdict: Verdict) -> Verdict:
    return replace(
        verdict,
        reason=f"{verdict.reason}; the loop rolls out versions of {version.name} for {role}, so it stays candidate. To "
        f"try it on a share of the sessions: loraloop stage=rollout role={role} version={version.number}",
    )
