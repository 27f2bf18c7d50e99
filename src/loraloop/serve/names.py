"""Names of adapters as clients write them, and the registered versions or folders behind them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loraloop.errors import UnknownVersionError
from loraloop.records import Version

BASE = "base"
NAME = re.compile(r"(?P<name>\w[\w.-]*)@(?P<at>\w[\w.-]*)", re.ASCII)
REFERENCE = re.compile(r"models:/(?P<name>\w[\w.-]*)[/@](?P<at>\w[\w.-]*)", re.ASCII)


@dataclass
class Versions:
    """Finds versions by name. Its methods look at disk and database: they block.

    Attributes:
        resolve: The registry's, from ``models:/NAME/N``, ``models:/NAME@ALIAS`` or a folder.
        names: Short names of registered models: ``ocr`` for ``loraloop-ocr``.
        number: The registry's number of the version behind such a reference, by one cheap question; ``resolve`` also
            verifies the files.
        active: The alias of a model's active version, which rollouts are about.
        aliases: Every alias of the registry that leads to an adapter of this base: model, alias and version.
        numbers: Every version of the registry that is an adapter of this base: model and number.
    """

    resolve: Callable[[str], Version]
    names: Mapping[str, str] = field(default_factory=dict)
    active: str = "champion"
    aliases: Callable[[], Iterable[tuple[str, str, int]]] = tuple
    numbers: Callable[[], Iterable[tuple[str, int]]] = tuple
    number: Callable[[str], int] | None = None
    _folders: dict[str, Version] = field(default_factory=dict)

    def find(self, name: str) -> tuple[str, Version]:
        """The version behind ``ocr@7`` or ``ocr@champion``, verified, and the name that never means another one.

        Raises:
            UnknownVersionError: There is none.
            RegistryError: The registry cannot be asked, or the version is damaged.
        """
        if name in self._folders:
            return name, self._folders[name]
        model, reference = self._reference(name)
        version = self.resolve(reference)
        return self.name(model, version.number), version

    def current(self, name: str) -> str:
        """The name of the version that ``ocr@7`` or ``ocr@champion`` leads to now; nothing of it is verified.

        Raises:
            UnknownVersionError: There is none.
            RegistryError: The registry cannot be asked.
        """
        if name in self._folders:
            return name
        model, reference = self._reference(name)
        return self.name(model, self.number(reference) if self.number else self.resolve(reference).number)

    def name(self, model: str, number: int) -> str:
        """The name of a version of a registered model that never means another one."""
        return f"{self._short(model)}@{number}"

    def listed(self) -> dict[str, str]:
        """The aliases that lead to adapters of this base, as clients write them, and the version behind each.

        Raises:
            RegistryError: The registry cannot be asked.
        """
        found = {f"{self._short(model)}@{alias}": self.name(model, number) for model, alias, number in self.aliases()}
        return {name: version for name, version in found.items() if NAME.fullmatch(name)}

    def registered(self) -> dict[str, str]:
        """:meth:`listed`, and every version under its own name, newest first.

        Raises:
            RegistryError: The registry cannot be asked.
        """
        names = [self.name(model, number) for model, number in sorted(self.numbers(), reverse=True)]
        return self.listed() | {name: name for name in names if NAME.fullmatch(name)}

    def active_model(self, name: str) -> str | None:
        """The registered model whose active version ``name`` asks for; ``None`` where it asks for something else."""
        match = NAME.fullmatch(name)
        if match is None or name in self._folders or match["at"] != self.active:
            return None
        return self.names.get(match["name"], match["name"])

    def version(self, name: str) -> Version:
        """The version alone."""
        return self.find(name)[1]

    def open(self, name: str, path: str) -> tuple[str, Version]:
        """The version that ``path`` names, ``ocr@7`` or ``models:/loraloop-ocr/7``, or the adapter in that folder.

        A folder's adapter gets ``name`` and the beginning of its weights' SHA-256 as its name.

        Raises:
            RegistryError: There is no such version or folder, or it is damaged.
        """
        if match := REFERENCE.fullmatch(path):
            return self.find(f"{match['name']}@{match['at']}")
        if NAME.fullmatch(path) and not Path(path).is_dir():
            return self.find(path)
        version = self.resolve(str(Path(path).expanduser().resolve()))
        kept = f"{name}@{version.manifest.weights_sha256[:12]}"
        self._folders[kept] = version
        return kept, version

    def forget(self, name: str) -> None:
        """Let go of a folder's adapter."""
        self._folders.pop(name, None)

    def _reference(self, name: str) -> tuple[str, str]:
        """The registered model that ``name`` is about, and how the registry writes ``name``."""
        match = NAME.fullmatch(name)
        if match is None:
            raise UnknownVersionError("a model is base, NAME@VERSION, NAME@ALIAS, agent:ROLE or one that was loaded")
        full, at = self.names.get(match["name"], match["name"]), match["at"]
        return full, f"models:/{full}/{int(at)}" if at.isdecimal() else f"models:/{full}@{at}"

    def _short(self, model: str) -> str:
        return next((short for short, long in self.names.items() if long == model), model)
