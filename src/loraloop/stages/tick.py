"""Stages ``tick``, ``rollout`` and ``rollback``: the loop, step by step or by hand."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError
from loraloop.workflows.retraining import deployment as lines
from loraloop.workflows.retraining.machine import loop
from loraloop.workflows.retraining.rollout import Rollouts
from loraloop.workflows.retraining.training import Retraining

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
        LoraloopError: A role that there is not, without a champion, or whose champion, ledger or golden set is damaged:
            of such a role, a running rollout was judged and nothing else was done.
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
        loop(policy, retraining, store, registry, alerts).tick(roles, names, registry)


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
        ConfigError: A role that there is not or without a champion, the version reigns already, or an alias leads to a
            version that was rolled back.
        ModelError: The version is of another base than the champion.
        StoreError: The role has a cycle that is not over.
    """
    with closing(feedback.open()) as store:
        line = lines.line(role, roles, names, registry)
        chosen = line.registry.resolve(str(version))
        rollouts = _rollouts(policy, store, tracker, alerts)
        if "@" in str(version) and (why := rollouts.taken_back(line, chosen.number)):
            raise ConfigError(
                f"version={version} is version {chosen.number} of {line.model}, which was rolled back: {why}; "
                f"version={chosen.number} tries it again all the same"
            )
        rollouts.start(line, chosen)


def rollback(
    job: Job,
    role: str,
    reason: str,
    version: int | None,
    policy: Policy,
    roles: dict[str, str],
    names: dict[str, str],
    tracker: Tracker,
    registry: MlflowRegistry,
    feedback: Feedback,
    alerts: Alerts,
) -> None:
    """At once: end a role's running rollout; or else give it back to the version that reigned before.

    A rollout is ended also where registry and tracker are away, and where the role has left ``server.roles``.

    Raises:
        ConfigError: A role that there is not, or nothing to go back to.
        StoreError: It could not be carried out.
    """
    with closing(feedback.open()) as store:
        rollouts = _rollouts(policy, store, tracker, alerts)
        tried = rollouts.loop.open(role)
        if tried is not None and tried.rollout:
            line = lines.Deployment(role, tried.model, tried.model, replace(registry, name=tried.model))
        else:
            line = lines.line(role, roles, names, registry)
        rollouts.take_back(line, reason, version)


def _rollouts(policy: Policy, store: Store, tracker: Tracker, alerts: Alerts) -> Rollouts:
    from loraloop.loop.store import LoopStore

    return Rollouts(
        policy=policy, loop=LoopStore(store.database, policy.name), store=store, tracker=tracker, alerts=alerts
    )
