"""What a role stands on: its model, the registry of that, and who reigns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError
from loraloop.serve.names import BASE

if TYPE_CHECKING:
    from loraloop.records import Version
    from loraloop.registry.ledger import Entry
    from loraloop.registry.mlflow import MlflowRegistry


@dataclass(frozen=True, slots=True)
class Deployment:
    """The versions of one role.

    Attributes:
        short: The model's name as sessions have it: ``ocr`` of ``ocr@7``.
        model: The registered model.
        registry: Of that model alone.
    """

    role: str
    short: str
    model: str
    registry: MlflowRegistry

    def champion(self) -> Version:
        """Who reigns, its weights verified.

        Raises:
            ConfigError: Nobody does.
            RegistryError: Its artefact is gone or was altered.
        """
        reigning = self.registry.champion()
        if reigning is None:
            raise ConfigError(
                f"{self.role} has no champion: {self.model} has no version under the alias "
                f"{self.registry.serve_alias}. Train one with `loraloop registry.name={self.model}`, or promote one "
                f"with `loraloop stage=promote registry.name={self.model} version=N`"
            )
        return reigning

    def session(self, number: int) -> str:
        """What sessions say that this version answered."""
        return f"{self.short}@{number}"

    def mine(self, answered: str) -> bool:
        """Whether a session was answered by a version of this line."""
        return answered.partition("@")[0] == self.short

    def since(self, number: int) -> str:
        """When a version that reigns began to.

        Raises:
            RegistryError: The ledger was altered.
        """
        return next((entry.time for entry in reversed(self._reigns()) if entry.version == number), "")

    def reigning(self) -> int | None:
        """The number of who reigns, sound or not."""
        reigns = self._reigns()
        return reigns[-1].version if reigns else None

    def before(self) -> int | None:
        """The version that reigned before this one: what a rollback takes back does not come again.

        Where the alias was taken away and nobody reigns, it is the last that did.
        """
        stack: list[int] = []
        for entry in self._reigns():
            if entry.event == "rollback" and entry.version in stack:
                del stack[stack.index(entry.version) + 1 :]
            elif entry.version is not None and stack[-1:] != [entry.version]:
                stack.append(entry.version)
        if self.reigning() is None:
            return stack[-1] if stack else None
        return stack[-2] if len(stack) > 1 else None

    def _reigns(self) -> list[Entry]:
        """The entries with which another version began to reign."""
        found: list[Entry] = []
        for entry in self.registry.history():
            if entry.alias == self.registry.serve_alias and (not found or found[-1].version != entry.version):
                found.append(entry)
        return found


def line(role: str, roles: Mapping[str, str], names: Mapping[str, str], registry: MlflowRegistry) -> Deployment:
    """The line of a role.

    Raises:
        ConfigError: ``server.roles`` has no such role, or it is not answered by the reigning version of a model.
    """
    if role not in roles:
        raise ConfigError(
            f"there is no role {role}{nearest(role, roles)}: server.roles has {', '.join(roles) or 'none'}; add "
            f"server.roles.{role}=NAME@{registry.serve_alias}, or name another role"
        )
    name, _, at = roles[role].partition("@")
    if at != registry.serve_alias:
        model = "NAME" if name == BASE else name
        raise ConfigError(
            f"server.roles.{role}={roles[role]}: the loop moves the alias {registry.serve_alias}, which this role does "
            f"not follow; write server.roles.{role}={model}@{registry.serve_alias}, or leave the role to itself"
        )
    model = names.get(name, name)
    short = next((each for each, full in names.items() if full == model), model)
    return Deployment(role, short, model, registry_of(role, name, names, registry))


def registry_of(role: str, name: str, names: Mapping[str, str], registry: MlflowRegistry) -> MlflowRegistry:
    """The registry of the model that a role's short name leads to.

    Raises:
        ConfigError: It is no name of a registered model.
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
