"""Stages ``tick``, ``rollout`` and ``rollback``: the loop, step by step or by hand."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from loraloop.stages import line as lines
from loraloop.stages.cycles import loop
from loraloop.stages.retraining import Retraining
from loraloop.stages.rollouts import Rollouts

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Store
    from loraloop.gate.gate import Gate
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Ocr, Source, Tracker, Trainer
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def tick(
    job: Job,
    policy: Policy,
    roles: dict[str, str],
    names: dict[str, str],
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    lora: Lora,
    trainer: Trainer,
    evaluation: Evaluation,
    gate: Gate,
    tracker: Tracker,
    registry: MlflowRegistry,
    feedback: Feedback,
    alerts: Alerts,
) -> None:
    """One step of the loop for every role of the policy: as far as it can go now; run again, it goes on from there.

    Raises:
        ConfigError: A role that there is not, without a champion, or whose champion or ledger is damaged; nothing was
            changed.
    """
    with closing(feedback.open()) as store:
        retraining = Retraining(
            job=job,
            source=source,
            ocr=ocr,
            dataset=dataset,
            model=model,
            lora=lora,
            trainer=trainer,
            evaluation=evaluation,
            gate=gate,
            tracker=tracker,
            max_forgetting=policy.max_forgetting,
        )
        made = loop(policy, retraining, store, registry, alerts)
        found = lines.lines(policy.roles, roles, names, registry)
        made.check(found)
        for each in found:
            made.tend(each)


def rollout(
    job: Job,
    role: str,
    version: str,
    policy: Policy,
    roles: dict[str, str],
    names: dict[str, str],
    tracker: Tracker,
    registry: MlflowRegistry,
    feedback: Feedback,
    alerts: Alerts,
) -> None:
    """Give a share of a role's conversations to a version that a person chose; ticks judge it from then on.

    Raises:
        ConfigError: A role that there is not or without a champion, or the version reigns already.
        ModelError: The version is of another base than the champion.
        StoreError: The role has a cycle that is not over.
    """
    with closing(feedback.open()) as store:
        (line,) = lines.lines([role], roles, names, registry)
        chosen = line.registry.resolve(str(version))
        _rollouts(policy, store, tracker, alerts).start(line, chosen)


def rollback(
    job: Job,
    role: str,
    reason: str,
    policy: Policy,
    roles: dict[str, str],
    names: dict[str, str],
    tracker: Tracker,
    registry: MlflowRegistry,
    feedback: Feedback,
    alerts: Alerts,
) -> None:
    """At once: end a role's running rollout; or else give it back to the version that reigned before.

    Raises:
        ConfigError: A role that there is not, or nothing to go back to.
    """
    with closing(feedback.open()) as store:
        line = lines.line(role, roles, names, registry)
        _rollouts(policy, store, tracker, alerts).take_back(line, reason)


def _rollouts(policy: Policy, store: Store, tracker: Tracker, alerts: Alerts) -> Rollouts:
    from loraloop.loop.store import LoopStore

    return Rollouts(policy=policy, loop=LoopStore(store.database), store=store, tracker=tracker, alerts=alerts)
