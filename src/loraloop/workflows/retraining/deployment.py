"""Deployments: the model that answers for an agent role, the version that is served, and the versions before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError, LoraloopError
from loraloop.serve.names import BASE

if TYPE_CHECKING:
    from loraloop.records import Session, Version
    from loraloop.registry.ledger import Entry
    from loraloop.registry.mlflow import MlflowRegistry


class NoChampionError(ConfigError):
    """A role's model has no champion yet."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One role's model and its versions. The champion is the version under the alias ``registry.serve_alias``.

    Attributes:
        short_name: The model's name in sessions: ``ocr`` of ``ocr@7``.
        model: The registered model.
        registry: The registry of that model.
    """

    role: str
    short_name: str
    model: str
    registry: MlflowRegistry

    def champion(self) -> Version:
        """The champion, with its weights verified.

        Raises:
            NoChampionError: There is none.
            RegistryError: Its artefact is gone or was altered.
        """
        champion = self.registry.champion()
        if champion is None:
            raise NoChampionError(
                f"{self.role} has no champion: {self.model} has no version under the alias "
                f"{self.registry.serve_alias}. Train one with `loraloop registry.name={self.model}`, or promote one "
                f"with `loraloop stage=promote registry.name={self.model} version=N`"
            )
        return champion

    def name_of(self, number: int) -> str:
        """The name of a version in the sessions that it answered: ``ocr@7``."""
        return f"{self.short_name}@{number}"

    def owns(self, answered: str) -> bool:
        """Whether a session was answered by a version of this model."""
        return answered.partition("@")[0] == self.short_name

    def active_since(self, number: int) -> str:
        """When a version last became the champion, ISO 8601, UTC; empty if it never was.

        Raises:
            RegistryError: The ledger was altered.
        """
        return next((entry.time for entry in reversed(self._promotions()) if entry.version == number), "")

    def active(self) -> int | None:
        """The champion's number according to the ledger, whether its artefact is intact or not."""
        found = self._promotions()
        return found[-1].version if found else None

    def previous(self) -> int | None:
        """The version that a rollback goes back to; versions that were rolled back are skipped.

        Where the alias was removed and there is no champion, it is the last one.
        """
        stack: list[int] = []
        for entry in self._promotions():
            if entry.event == "rollback" and entry.version in stack:
                del stack[stack.index(entry.version) + 1 :]
            elif entry.version is not None and stack[-1:] != [entry.version]:
                stack.append(entry.version)
        if self.active() is None:
            return stack[-1] if stack else None
        return stack[-2] if len(stack) > 1 else None

    def _promotions(self) -> list[Entry]:
        """The ledger's entries that changed the champion."""
        found: list[Entry] = []
        for entry in self.registry.history():
            if entry.alias == self.registry.serve_alias and (not found or found[-1].version != entry.version):
                found.append(entry)
        return found


def deployment_of(
    role: str, roles: Mapping[str, str], names: Mapping[str, str], registry: MlflowRegistry
) -> Deployment:
    """The deployment of a role.

    Args:
        role: An agent role.
        roles: ``server.roles``.
        names: ``server.names``.
        registry: Any model's; the deployment gets its own.

    Raises:
        ConfigError: ``server.roles`` has no such role, or the role does not follow the alias that the loop moves.
    """
    _require(role, roles, registry.serve_alias)
    name, _, at = roles[role].partition("@")
    if at != registry.serve_alias:
        model = "NAME" if name == BASE else name
        raise ConfigError(
            f"server.roles.{role}={roles[role]}: the loop moves the alias {registry.serve_alias}, which this role does "
            f"not follow; write server.roles.{role}={model}@{registry.serve_alias}, or remove the role from "
            "policy.roles"
        )
    model, short_name = _model(name, names)
    return Deployment(role, short_name, model, registry_of(role, name, names, registry))


def registry_for(
    role: str | None, roles: Mapping[str, str], names: Mapping[str, str], registry: MlflowRegistry
) -> MlflowRegistry:
    """The registry of the model that answers for a role; without a role, ``registry``.

    Raises:
        ConfigError: ``server.roles`` has no such role, or the base alone answers for it.
    """
    if role is None:
        return registry
    _require(role, roles, registry.serve_alias)
    name = roles[role].partition("@")[0]
    if name == BASE:
        raise ConfigError(
            f"server.roles.{role}={BASE}: the base answers for it, which no registered model does; write "
            f"server.roles.{role}=NAME@{registry.serve_alias}"
        )
    return registry_of(role, name, names, registry)


def has_champion(role: str, roles: Mapping[str, str], names: Mapping[str, str], registry: MlflowRegistry) -> bool:
    """Whether the model that answers for a role has a champion; nothing of it is verified."""
    try:
        return registry_for(role, roles, names, registry).number(f"@{registry.serve_alias}") > 0
    except LoraloopError:
        return False


def sessions_of(role: str | None, roles: Mapping[str, str], names: Mapping[str, str]) -> Callable[[Session], bool]:
    """Whether a session is a role's: asked as that role, or answered by its model; without a role, all are.

    Raises:
        ConfigError: ``server.roles`` has no such role.
    """
    if role is None:
        return lambda session: True
    _require(role, roles)
    name = roles[role].partition("@")[0]
    short_name = None if name == BASE else _model(name, names)[1]
    return lambda session: session.role == role or (session.answered or "").partition("@")[0] == short_name


def _require(role: str, roles: Mapping[str, str], alias: str = "champion") -> None:
    if role not in roles:
        raise ConfigError(
            f"there is no role {role}{nearest(role, roles)}: server.roles has {', '.join(roles) or 'none'}; add "
            f"server.roles.{role}=NAME@{alias}, or name another role"
        )


def _model(name: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The registered model behind a role's name, and its short name in sessions."""
    model = names.get(name, name)
    return model, next((each for each, full in names.items() if full == model), model)


def registry_of(role: str, name: str, names: Mapping[str, str], registry: MlflowRegistry) -> MlflowRegistry:
    """The registry of the model that a role's short name stands for.

    Raises:
        ConfigError: No registered model can have that name.
    """
    model = names.get(name, name)
    try:
        return replace(registry, name=model)
    except ValueError:
        key = f"server.names.{name}={model}" if name in names else f"server.roles.{role} names {name!r}"
        raise ConfigError(
            f"{key}: a registered model's name begins with a letter, a digit or _, and goes on with these, . and -; "
            "correct it"
        ) from None
