"""Stage ``ledger``: every decision that was taken, and which version served a role at a time, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.workflows import ledger_view
from loraloop.workflows.retraining.deployment import registry_of

if TYPE_CHECKING:
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def ledger(
    job: Job,
    role: str,
    at: str | None,
    verify: bool,
    roles: dict[str, str],
    names: dict[str, str],
    registry: MlflowRegistry,
) -> None:
    """Print the ledger, verify it, or print which version served a role at a time, and why.

    Args:
        job: Of the stage.
        role: An agent role, or an alias of the registry's own model.
        at: ISO 8601; UTC where it names no zone.
        verify: Only check the chain of hashes.
        roles: What answers for each agent role.
        names: Short names of registered models.
        registry: Its model is that of an alias; a role has its own.

    Raises:
        ConfigError: The role or alias does not exist.
        RegistryError: There is no ledger, or it was altered; the message names the first line that does not hold.
    """
    alias, model, answers = role, None, roles.get(role)
    if answers is not None:
        short, _, alias = answers.partition("@")
        if not alias:
            print(f"{answers} answers for {role} (server.roles.{role}): no version serves it")
            return
        model = names.get(short, short)
        registry = registry_of(role, short, names, registry)
    entries = registry.history()
    if at is not None and not verify:
        ledger_view.print_active(role, alias, model, str(at), entries, roles)
        return
    ledger_view.require(registry.ledger.path)
    if verify:
        ledger_view.print_chain(role, entries)
    else:
        ledger_view.print_entries(entries)
