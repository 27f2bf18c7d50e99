"""Versions of adapters in MLflow's model registry, with a ledger of which version served when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from loraloop.core import adapter_files, servable
from loraloop.core.adapter_files import CONFIG, MANIFEST
from loraloop.core.locks import required_lock
from loraloop.core.part import part
from loraloop.core.passwords import mask
from loraloop.errors import (
    AliasMovedError,
    ArtefactError,
    ConfigError,
    ModelError,
    RegistryError,
    UnknownVersionError,
    UnservableError,
)
from loraloop.records import Base, Manifest, Parity, Version
from loraloop.registry import adapter_store, connection, weights
from loraloop.registry import manifest as manifests
from loraloop.registry.ledger import Entry, Ledger

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
REFERENCE = re.compile(r"(?:models:/(?P<name>\w[\w.-]*)(?:/(?=\d)|(?=@)))?(?:@(?P<alias>[\w.-]+)|(?P<number>\d+))")
SHA256 = re.compile(r"[0-9a-f]{64}")
LOCK_SECONDS = 300
MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""How MLflow says that a version or an alias does not exist."""
CONTENT = "content_sha256"
"""Version tag by which an adapter is recognised; also the name of its folder."""
ROLLOUT_ROLE = "loraloop.rollout_role"
"""Model tag with the agent role for which the loop rolls out its versions."""


@part
class MlflowRegistry:
    """Keeps adapters under ``folder/artifacts/adapters/<name>/<content>`` and their versions and aliases in MLflow.

    A kept adapter is never written again, so a run that is resumed or deleted cannot change a version.

    An alias is written to MLflow first and to the ledger second: servers follow MLflow's alias, so the ledger
    follows it too. After a crash between the two, or a change made in MLflow's own pages, the next call that looks at
    an alias enters the difference as the event ``observed`` before it goes on.

    Attributes:
        name: Registered model.
        folder: Home of the database (``mlflow.db``), the adapters and the ledger (``<name>.ledger.jsonl``).
        uri: An MLflow server or database instead of ``folder/mlflow.db``.
        serve_alias: The alias of the active version.
        max_rank: The largest rank that servers load (``serve.max_rank``); a version above it is not promoted.
    """

    name: Name = "loraloop"
    folder: Path = Path("mlruns")
    uri: str | None = None
    serve_alias: Name = "champion"
    max_rank: Annotated[int, Field(ge=1)] = 64

    def check(self) -> None:
        """Reach the server, if there is one, within 10 s.

        Raises:
            ConfigError: It does not answer, or ``folder`` is a file.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"registry.folder={self.folder} must be a folder, but it is a file; choose another")
        if self.uri is not None and self.uri.startswith(("http://", "https://")):
            connection.reach(self.uri)

    @property
    def ledger(self) -> Ledger:
        """The ledger beside the database."""
        return Ledger(self.folder / f"{self.name}.ledger.jsonl")

    def register(self, adapter: Path, manifest: Manifest, run: str | None = None) -> Version:
        """Keep an adapter as the next version, alias ``candidate``; an equal one is returned with ``created=False``.

        Args:
            adapter: Folder in PEFT's layout.
            manifest: What it is; written beside the weights.
            run: Id of the MLflow run that it comes from; a server keeps the files with that run.

        Raises:
            RegistryError: The folder does not hold what the manifest says, or its base has random weights.
        """
        if manifest.base.weights == "random":
            raise RegistryError(
                f"the base {manifest.base.name} has random weights (model.weights=random), so its adapter means "
                "nothing outside a benchmark; train on model.weights=pretrained to register"
            )
        manifests.verify(adapter, manifest)
        content = manifests.content_sha256(adapter, manifest)
        with self._locked(), self._client() as client:
            adapter_store.save(self._kept(self.name, content), adapter, manifest, content)
            number = self._find(client, content) or self._create(client, content, manifest, run)
            created = all(entry.version != number or entry.event != "register" for entry in self.ledger.entries())
            if created:
                self._point(client, "register", number, "candidate", f"content {content[:12]}", {"run": run})
            return self._version(client, self.name, number, created)

    def promote(
        self,
        number: int,
        alias: str,
        reason: str,
        event: str = "promote",
        numbers: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> Version:
        """Point ``alias`` at a version and write it, with the reason, into the ledger.

        Args:
            number: The version.
            alias: What points at it from now on.
            reason: Why, in a sentence.
            event: What the ledger calls it; ``rollback`` gives the alias back to an earlier version.
            numbers: What it was decided on.
            expected: The version that the alias has to lead to now, 0 for none yet; ``None``: whichever it is.

        Raises:
            RegistryError: There is no such version, its weights are altered, or MLflow does not allow the alias.
            UnservableError: A server would not load it, so the alias would answer nothing.
            AliasMovedError: The alias leads to another version than ``expected``; nothing was changed.
        """
        version = self.resolve(str(number))
        self.require_servable(version.path, f"{version.name} version {number}")
        with self._locked(), self._client() as client:
            now = self._aliases(client, self.name).get(alias, 0)
            if expected is not None and now != expected:
                raise AliasMovedError(
                    f"{alias} of {self.name} leads to {now or 'no version'}, and this was decided against "
                    f"{expected or 'no version'}: decide again"
                )
            self._point(client, event, number, alias, reason, numbers or {})
            return self._version(client, self.name, number, created=False)

    def require_servable(self, adapter: Path, name: str) -> None:
        """Check that servers load an adapter, by the rule that they use themselves.

        Args:
            adapter: Its folder.
            name: What it is called in the message.

        Raises:
            UnservableError: They would refuse it.
        """
        try:
            servable.require_settings(adapter / CONFIG, manifests.config(adapter))
            servable.require_rank(
                name, weights.rank(adapter_files.weights(adapter)), self.max_rank, "registry.max_rank"
            )
        except ModelError as error:
            raise UnservableError(str(error)) from error

    def mark_rollouts(self, role: str) -> None:
        """Say in MLflow that the loop rolls out this model's versions for an agent role."""
        if self.rollout_role() != role:
            with self._client() as client:
                client.set_registered_model_tag(self.name, ROLLOUT_ROLE, role)

    def rollout_role(self) -> str | None:
        """The role that :meth:`mark_rollouts` named; ``None`` if the loop has never looked at this model."""
        with self._client() as client:
            found = client.search_registered_models(f"name = '{self.name}'")
            return str(found[0].tags[ROLLOUT_ROLE]) if found and ROLLOUT_ROLE in found[0].tags else None

    def release(self, alias: str, number: int, reason: str) -> None:
        """Take an alias away from a version, and write that into the ledger; nothing if it does not point there."""
        with self._locked(), self._client() as client:
            if self._aliases(client, self.name).get(alias) == number:
                client.delete_registered_model_alias(self.name, alias)
                self.ledger.append("release", None, reason, alias=alias, numbers={"from": number})

    def resolve(self, reference: str) -> Version:
        """A version from ``models:/NAME@ALIAS``, ``models:/NAME/N``, ``@ALIAS``, ``N`` or an adapter's folder.

        A folder that is not registered has the number 0.

        Raises:
            RegistryError: There is no such version, or the weights do not have the manifest's SHA-256.
        """
        match = REFERENCE.fullmatch(reference)
        if match is None:
            return self._unregistered(reference)
        name = match["name"] or self.name
        with self._client() as client:
            aliases = self._aliases(client, name)
            number = aliases.get(match["alias"]) if match["alias"] else int(match["number"])
            numbers = self._numbers(client, name)
            if number not in numbers:
                others = [each.name for each in client.search_registered_models()] if not numbers else []
                raise UnknownVersionError(_unknown(reference, name, aliases, numbers, others))
            version = self._version(client, name, number, created=False)
        adapter_store.load(version.path, version.path.name)
        return version

    def number(self, reference: str) -> int:
        """The number of a version of :meth:`resolve`, by one question to MLflow; nothing of it is read or verified.

        Nor is the ledger compared with MLflow: that is done when the version is resolved.

        Raises:
            UnknownVersionError: There is no such version.
            RegistryError: MLflow cannot be asked.
        """
        from mlflow.exceptions import MlflowException

        match = REFERENCE.fullmatch(reference)
        if match is None:
            raise UnknownVersionError(f"{reference!r} is no version; write models:/{self.name}@ALIAS or NAME/N")
        name = match["name"] or self.name
        with self._client() as client:
            try:
                if match["alias"]:
                    return int(client.get_model_version_by_alias(name, match["alias"]).version)
                return int(client.get_model_version(name, match["number"]).version)
            except MlflowException as error:
                if error.error_code in MISSING:
                    raise UnknownVersionError(f"{reference}: there is no such version or alias") from error
                raise

    def champion(self) -> Version | None:
        """The version under ``serve_alias``, its weights verified, if there is one."""
        with self._client() as client:
            active = self.serve_alias in self._aliases(client, self.name)
        return self.resolve(f"@{self.serve_alias}") if active else None

    def aliases(self, base: Base | str) -> list[tuple[str, str, int]]:
        """Model, alias and version of every alias in the registry whose version was trained on ``base``.

        MLflow's tags say on which base; no adapter is read, verified or fetched.

        Args:
            base: The base, or its name alone where nothing else is known of it.

        Raises:
            RegistryError: The registry cannot be asked.
        """
        found = []
        with self._client() as client:
            for model in _every_model(client):
                numbers = {int(number) for number in model.aliases.values()}
                tags = {number: client.get_model_version(model.name, str(number)).tags for number in numbers}
                of_base = {number for number in numbers if _trained_on(base, tags[number])}
                found += [(model.name, alias, int(at)) for alias, at in model.aliases.items() if int(at) in of_base]
        return sorted(found)

    def runs(self) -> list[tuple[str, int, str]]:
        """Model, version and run of every version in the registry; the run is empty where none is known.

        Raises:
            RegistryError: The registry cannot be asked.
        """
        if self.uri is None and not (self.folder / "mlflow.db").exists():
            return []
        with self._client() as client:
            return sorted(
                (model.name, int(version.version), version.run_id or version.tags.get("run_id", ""))
                for model in _every_model(client)
                for version in client.search_model_versions(f"name = '{model.name}'")
            )

    def versions(self, base: Base | str) -> list[tuple[str, int]]:
        """Model and number of every version in the registry that was trained on ``base``, as :meth:`aliases` tells it.

        Raises:
            RegistryError: The registry cannot be asked.
        """
        with self._client() as client:
            found = [(each.name, int(each.version)) for each in _every_version(client) if _trained_on(base, each.tags)]
        return sorted(found)

    def record(self, event: str, number: int | None, reason: str, numbers: Mapping[str, Any]) -> None:
        """Append an event (``gate``, ``publish``, ...) to the ledger, and show it as a tag of the version in MLflow."""
        self.ledger.append(event, number, reason, numbers=numbers)
        if number:
            with self._client() as client:
                client.set_model_version_tag(self.name, str(number), event, reason[:5000])

    def note_parity(self, version: Version, made: Parity) -> None:
        """Write how an export answered into the manifest of the kept adapter, in place of an earlier comparison of it.

        The adapter's content stays what it is; on a server, the run's copy of the manifest is replaced too.
        """
        with self._locked():
            manifests.note_parity(version.path, made)
        if self.uri is not None and version.manifest.run_id:
            with self._client() as client:
                folder = f"adapters/{version.path.name}"
                client.log_artifact(version.manifest.run_id, str(version.path / MANIFEST), folder)

    def history(self) -> list[Entry]:
        """Every entry of the ledger, oldest first, its chain of hashes verified.

        Raises:
            RegistryError: The ledger was altered.
        """
        self.ledger.verify()
        return self.ledger.entries()

    def _find(self, client: MlflowClient, content: str) -> int | None:
        found = client.search_model_versions(f"name = '{self.name}' AND tags.{CONTENT} = '{content}'")
        return min((int(version.version) for version in found), default=None)

    def _create(self, client: MlflowClient, content: str, manifest: Manifest, run: str | None) -> int:
        if not client.search_registered_models(f"name = '{self.name}'"):
            client.create_registered_model(self.name, description="LoRA adapters, see each version's tags")
        version = client.create_model_version(
            self.name,
            source=self._source(client, content, run),
            run_id=run,
            tags=_tags(content, manifest),
            description=f"LoRA rank {manifest.rank}, alpha {manifest.alpha:g}, on {manifest.base.name}",
        )
        return int(version.version)

    def _source(self, client: MlflowClient, content: str, run: str | None) -> str:
        folder = self._kept(self.name, content)
        if self.uri is None:
            return str(folder)
        if run is None:
            raise RegistryError("a server keeps an adapter with its run, and there is none: register with run=RUN_ID")
        client.log_artifacts(run, str(folder), f"adapters/{content}")
        return f"{client.get_run(run).info.artifact_uri}/adapters/{content}"

    def _point(
        self, client: MlflowClient, event: str, number: int, alias: str, reason: str, numbers: Mapping[str, Any]
    ) -> None:
        self._aliases(client, self.name)
        client.set_registered_model_alias(self.name, alias, str(number))
        self.ledger.append(event, number, reason, alias=alias, numbers=numbers)

    def _aliases(self, client: MlflowClient, name: str) -> dict[str, int]:
        if not client.search_registered_models(f"name = '{name}'"):
            return {}
        aliases = {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
        if name == self.name and aliases != self.ledger.aliases():
            self._observe(client)
        return aliases

    def _observe(self, client: MlflowClient) -> None:
        with self._locked():
            found = {key: int(value) for key, value in client.get_registered_model(self.name).aliases.items()}
            known = self.ledger.aliases()
            for alias in sorted(found.keys() | known.keys()):
                if found.get(alias) != known.get(alias):
                    reason = f"the alias was at {known.get(alias)}; it was moved without an entry here"
                    self.ledger.append("observed", found.get(alias), reason, alias=alias)

    def _numbers(self, client: MlflowClient, name: str) -> list[int]:
        return sorted(int(version.version) for version in client.search_model_versions(f"name = '{name}'"))

    def _version(self, client: MlflowClient, name: str, number: int, created: bool) -> Version:
        found = client.get_model_version(name, str(number))
        path = self._fetch(found)
        aliases = client.get_registered_model(name).aliases
        pointing = tuple(sorted(alias for alias, at in aliases.items() if int(at) == number))
        return Version(
            name=name, number=number, aliases=pointing, path=path, manifest=manifests.read(path), created=created
        )

    def _fetch(self, version: ModelVersion) -> Path:
        content = version.tags.get(CONTENT, "")
        if not SHA256.fullmatch(content):
            raise RegistryError(
                f"{version.name} version {version.version} was not registered by loraloop: no tag {CONTENT}"
            )
        path = self._kept(version.name, content)
        if not path.exists() and self.uri is not None:
            with self._locked():
                if not path.exists():
                    adapter_store.download(path, str(version.source), self.uri, content)
        if not path.exists():
            raise ArtefactError(
                f"{version.name} version {version.version}: its folder {path} is gone; "
                "restore it, or register the adapter again"
            )
        return path

    def _unregistered(self, reference: str) -> Version:
        path = Path(reference)
        if not path.is_dir():
            raise RegistryError(
                f"{reference!r} is neither a version nor a folder; write models:/{self.name}@champion, "
                f"models:/{self.name}/1, @champion, 1 or the path of an adapter's folder"
            )
        manifest = manifests.read(path)
        manifests.verify(path, manifest)
        return Version(name=path.name, number=0, aliases=(), path=path, manifest=manifest, created=False)

    def _kept(self, name: str, content: str) -> Path:
        return self.folder.resolve() / "artifacts" / "adapters" / name / content

    def _locked(self) -> AbstractContextManager[None]:
        return required_lock(self.folder / ".registry.lock", LOCK_SECONDS, RegistryError)

    @contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield connection.connect(self.folder.resolve(), self.uri)
        except (MlflowException, SQLAlchemyError) as error:
            where, first = mask(self.uri or f"{self.folder}/mlflow.db"), mask(str(error).partition("\n")[0])
            raise RegistryError(f"the registry {self.name} in {where} refused: {first}") from error


def _every_model(client: MlflowClient) -> Iterator[RegisteredModel]:
    page = client.search_registered_models()
    yield from page
    while page.token:
        page = client.search_registered_models(page_token=page.token)
        yield from page


def _every_version(client: MlflowClient) -> Iterator[ModelVersion]:
    page = client.search_model_versions()
    yield from page
    while page.token:
        page = client.search_model_versions(page_token=page.token)
        yield from page


def _trained_on(base: Base | str, tags: Mapping[str, str]) -> bool:
    """Whether a version's tags name ``base``; versions that were registered earlier lack some of the tags."""
    if CONTENT not in tags:
        return False
    expected = {"base": base} if isinstance(base, str) else _base_tags(base)
    return all(tags.get(key, value) == value for key, value in expected.items())


def _base_tags(base: Base) -> dict[str, str]:
    """The facts by which a server refuses an adapter of another base."""
    return {
        "base_sha256": base.sha256,
        "tokenizer_sha256": base.tokenizer_sha256,
        "quantization": base.quantization,
    }


def _tags(content: str, manifest: Manifest) -> dict[str, str]:
    values = {
        CONTENT: content,
        "base": manifest.base.name,
        **_base_tags(manifest.base),
        "rank": manifest.rank,
        "alpha": f"{manifest.alpha:g}",
        "dataset_fingerprint": manifest.dataset_fingerprint or "",
        "run_id": manifest.run_id or "",
    }
    return {key: str(value) for key, value in values.items()}


def _unknown(reference: str, name: str, aliases: Mapping[str, int], numbers: list[int], others: Sequence[str]) -> str:
    if not numbers:
        there = f"; there are {', '.join(sorted(others))}" if others else ""
        way = "register one with stage=register run=RUN or adapter=FOLDER"
        return f"{reference}: {name} has no versions yet{there}; {way}"
    pointers = ", ".join(f"{alias} -> {number}" for alias, number in sorted(aliases.items())) or "none"
    return f"{reference}: no such version of {name}; aliases: {pointers}; versions: {', '.join(map(str, numbers))}"
