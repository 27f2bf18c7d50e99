"""Registration of an adapter that was trained elsewhere, from a folder in PEFT's layout."""

from __future__ import annotations

import logging
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop import __version__
from loraloop.core import adapter_files, console
from loraloop.core.adapter_files import CONFIG, MANIFEST, WEIGHTS
from loraloop.core.hashing import sha256
from loraloop.errors import ArtefactError, ModelError
from loraloop.records import Manifest, Version
from loraloop.workflows import foreign

if TYPE_CHECKING:
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Tracker
    from loraloop.records import LoadedModel
    from loraloop.registry.mlflow import MlflowRegistry

log = logging.getLogger(__name__)

CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""PEFT's initialisations that change the base's weights: what is trained then fits the changed base alone."""
NAMED = "base_model_name_or_path"
UNMEASURED = "not measured here: it comes from a folder, and stays candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderRegistration:
    """Registers an adapter from a folder, as a candidate that no gate has judged.

    Attributes:
        model: The base that it answers on.
        template: How its prompts are rendered, where its folder does not say.
        output: The job's folder.
    """

    model: CausalLM
    template: str
    tracker: Tracker
    registry: MlflowRegistry
    output: Path

    def register(self, folder: Path) -> Version:
        """Check that the adapter fits the base and that servers load it, and register it.

        Of the folder, only configuration, weights in safetensors and a manifest are read.

        Raises:
            RegistryError: The folder does not hold such an adapter, or no server would load it.
            ModelError: The adapter does not fit the base.
        """
        folder = folder.expanduser()
        try:
            return self._register(folder)
        except (ArtefactError, ModelError) as error:  # of the copy, which is not what the person knows
            copied = str(self.output / "adapter")
            raise type(error)(str(error).replace(copied, str(folder))) from error

    def _register(self, folder: Path) -> Version:
        from loraloop.registry import manifest as manifests

        manifests.require_files(folder)
        config = manifests.config(folder)
        _require_plain(folder / CONFIG, config)
        foreign.require_known(folder / CONFIG, config)
        self.registry.require_servable(folder, str(folder))
        loaded = self.model.load()
        if (folder / MANIFEST).is_file():
            manifest = manifests.read(folder)
            manifests.verify_adapter(loaded.base, manifest)
            taken = self._copy(folder)
        else:
            _require_base(folder / CONFIG, config, loaded)
            taken = self._take(folder, config, loaded)
            manifest = self._manifest(taken, config, loaded)
        with self.tracker.start(f"register-{folder.resolve().name}") as run:
            run.params({"adapter": str(folder), "model.name": self.model.name})
            version = self.registry.register(taken, manifest, run.id)
        if version.created:
            self.registry.record("gate", version.number, UNMEASURED, {})
        return version

    def _manifest(self, folder: Path, config: Mapping[str, Any], loaded: LoadedModel) -> Manifest:
        """What can be known of an adapter without one; its probe is what it answers here."""
        from loraloop.model import adapters
        from loraloop.serve.engine.adapter_validation import AdapterValidator

        targets = config.get("target_modules") or ()
        manifest = Manifest(
            base=loaded.base,
            rank=config["r"],
            alpha=float(config["lora_alpha"]),
            targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
            dataset_fingerprint=None,
            template=self.template,
            run_id=None,
            parent_run_id=None,
            weights_sha256=sha256(folder / WEIGHTS),
            loraloop_version=__version__,
        )
        version = Version(name=folder.name, number=0, aliases=(), path=folder, manifest=manifest)
        try:
            AdapterValidator(loaded, self.registry.max_rank).read(str(folder), version)
            with adapters.attached(loaded.model, folder) as tuned:
                probe = adapters.probe(tuned, loaded.tokenizer)
            if not all(map(math.isfinite, probe.logits)):
                raise ModelError("its answers are not finite: its weights or lora_alpha are too large for the base")
            return replace(manifest, probe=probe)
        except ModelError as error:
            raise ModelError(f"the adapter cannot be used on model.name={loaded.base.name}: {error}") from error

    def _take(self, folder: Path, config: Mapping[str, Any], loaded: LoadedModel) -> Path:
        taken = foreign.take(folder, self.output / "adapter", config, loaded.model)
        for change in taken.changes:
            log.warning("%s: %s", folder, change)
        return taken.folder

    def _copy(self, folder: Path) -> Path:
        """The two files alone: a trainer leaves pickles of its own beside them, which are never kept."""
        copied = self.output / "adapter"
        copied.mkdir(parents=True)
        for path in (folder / CONFIG, adapter_files.weights(folder)):
            shutil.copyfile(path, copied / path.name)
        return copied


def report(version: Version) -> None:
    """Print what was registered, what is not known of it, and how it is measured and promoted."""
    manifest = version.manifest
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    facts = {
        "registry": f"{version.name} version {version.number}{aliases}"
        + ("" if version.created else ", registered before"),
        "base": manifest.base.name,
        "adapter": f"rank {manifest.rank}, alpha {manifest.alpha:g}, targets {', '.join(manifest.targets)}",
        "template": repr(manifest.template),
    }
    if manifest.dataset_fingerprint is None:
        facts["template"] += ", by dataset.template: the folder does not say with which one it was trained"
        facts["not known"] = f"its data and its run{_unnamed(version.path)}: the folder does not say"
    if version.created:
        facts["gate"] = UNMEASURED
        facts["measure it"] = f"loraloop stage=evaluate adapter=models:/{version.name}/{version.number} source=SOURCE"
        facts["promote it"] = f"loraloop stage=promote version={version.number} registry.name={version.name}"
    console.facts("registry", facts)


def _unnamed(folder: Path) -> str:
    from loraloop.registry import manifest as manifests

    return "" if manifests.config(folder).get(NAMED) else ", and the name of its base, whose shapes fit"


def _require_plain(path: Path, config: Mapping[str, Any]) -> None:
    """Check that a configuration is of a LoRA on the base as it is."""
    rank, alpha, init = (config.get(key) for key in ("r", "lora_alpha", "init_lora_weights"))
    if config.get("peft_type") != "LORA":
        raise ArtefactError(f"{path} has peft_type={config.get('peft_type')!r}, and only LORA is registered")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float) and 0 < alpha < math.inf):
        raise ArtefactError(f"{path} has r={rank!r} and lora_alpha={alpha!r}, which must be numbers above 0")
    if isinstance(init, str) and init.startswith(CHANGES_BASE):
        raise ArtefactError(
            f"{path} has init_lora_weights={init}, which changed the base, so the adapter fits no other: save it with "
            "PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...), or train one without"
        )


def _require_base(path: Path, config: Mapping[str, Any], loaded: LoadedModel) -> None:
    """Check that a configuration names the base, by the last part of the name: folders differ between machines."""
    named = config.get(NAMED)
    here = {loaded.base.name, loaded.base.revision, loaded.model.name_or_path}
    if named and _last(str(named)) not in {_last(name) for name in here if name}:
        raise ModelError(
            f"{path} says {NAMED}={named}, and model.name={loaded.base.name}: choose the model that it "
            f"was trained on (model.name={named}); if it is the same one under another name, write that name there"
        )


def _last(name: str) -> str:
    return re.split(r"[/\\:]", name.rstrip("/\\"))[-1].casefold()
