"""Stages ``tick``, ``rollout`` and ``rollback``: the loop, step by step or by hand."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError
from loraloop.workflows.retraining.cycles import open_cycles
from loraloop.workflows.retraining.deployment import Deployment, deployment_of
from loraloop.workflows.retraining.machine import retraining_loop
from loraloop.workflows.retraining.rollback import Rollback, rolled_back
from loraloop.workflows.retraining.rollout import StagedRollout
from loraloop.workflows.retraining.training import Retraining

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.feedback.settings import Feedback
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
    """Take the cycle of every role of the policy as far as it can go now; the next tick goes on from there.

    Raises:
        LoraloopError: A role is unknown or has no champion, or its champion, ledger or golden set is damaged. For such
            a role only a running rollout was judged; the other roles went on.
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
        retraining_loop(policy, retraining, store, registry, alerts).tick(roles, names, registry)


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
    """Begin the rollout of a version that a person chose; every tick judges it from then on.

    Raises:
        ConfigError: The role is unknown or has no champion, the version is the champion, or an alias leads to a version
            that was rolled back.
        ModelError: The version is of another base than the champion.
        StoreError: The role has an open cycle.
    """
    with closing(feedback.open()) as store:
        deployment = deployment_of(role, roles, names, registry)
        chosen = deployment.registry.resolve(str(version))
        if "@" in str(version) and (why := rolled_back(deployment, chosen.number)):
            raise ConfigError(
                f"version={version} is version {chosen.number} of {deployment.model}, which was rolled back: {why}; "
                f"to try it again, write version={chosen.number}"
            )
        cycles = open_cycles(policy, store, tracker, alerts)
        StagedRollout(policy=policy, cycles=cycles, sessions=store).choose(deployment, chosen)


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
    """End a role's running rollout at once; where none runs, make the version before the champion again.

    A rollout is ended also while registry and tracker cannot be reached, and when ``server.roles`` has no such role any
    more.

    Raises:
        ConfigError: The role is unknown, or there is no version to go back to.
        StoreError: It could not be carried out.
    """
    with closing(feedback.open()) as store:
        cycles = open_cycles(policy, store, tracker, alerts)
        cycle = cycles.state.open(role)
        if cycle is not None and cycle.rollout:
            deployment = Deployment(role, cycle.model, cycle.model, replace(registry, name=cycle.model))
        else:
            deployment = deployment_of(role, roles, names, registry)
        Rollback(policy=policy, cycles=cycles).run(deployment, reason, version)
