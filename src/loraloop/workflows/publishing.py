"""Publishing a version: alone, or as an export that must answer, in its runtime, as the adapter did."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from loraloop.errors import ArtefactError, DataError
from loraloop.publish import export as exports
from loraloop.publish import template
from loraloop.workflows import export_folder, parity, parity_report
from loraloop.workflows.version_base import VersionBase

if TYPE_CHECKING:
    from loraloop.protocols import Publisher, Runtime, Tracker
    from loraloop.publish.folder import Folder
    from loraloop.publish.gguf import Gguf
    from loraloop.publish.hub import Hub
    from loraloop.publish.merged import Merged
    from loraloop.publish.s3 import S3
    from loraloop.records import Export, Parity, Score, Version
    from loraloop.registry.mlflow import MlflowRegistry


def put(publisher: Publisher, version: Version, tracker: Tracker, registry: MlflowRegistry) -> str:
    """Publish a version; returns the address.

    Raises:
        RegistryError: The place cannot be reached or holds something else, or the version may not be published so.
        ConfigError: The base cannot be found on this machine, or the disk is too small.
        ArtefactError: The export answers differently from the adapter; nothing was published.
    """
    from loraloop.publish.folder import Folder
    from loraloop.publish.gguf import Gguf
    from loraloop.publish.hub import Hub
    from loraloop.publish.merged import Merged
    from loraloop.publish.s3 import S3

    made = scores(version, tracker)
    if isinstance(publisher, Folder | Hub | S3) and publisher.form != "adapter":
        return publisher.publish(version, made, _export(publisher, version, registry))
    base = VersionBase(version)
    if isinstance(publisher, Folder | Hub | S3):
        return publisher.publish(version, made, chat=template.travelling(version.manifest, base.tokenizer))
    if not isinstance(publisher, Merged | Gguf):
        return publisher.publish(version, made)
    exports.require_exportable(version)
    gate = _Gate(publisher=publisher, version=version, base=base, known=_recorded(publisher, version, tracker))
    if isinstance(publisher, Gguf):
        _require_template(version, base)
    where = publisher.publish(version, made, base, gate)
    for each in gate.made or _kept(publisher, version, Path(where), registry):
        parity.keep(each, version, Path(where), registry, tracker)
    return where


def _recorded(publisher: Merged | Gguf, version: Version, tracker: Tracker) -> parity.Recorded | None:
    """The answers to compare with; ``None`` where there are none and no agreement is asked for.

    Raises:
        DataError: There are none.
    """
    try:
        return parity.recorded(version, publisher.rows, tracker)
    except DataError as error:
        if publisher.min_agreement == 0:
            return None
        raise DataError(f"{error}; publish.min_agreement=0 publishes it without being measured") from error


def _require_template(version: Version, base: VersionBase) -> None:
    """See before work, on the bundled model, that llama.cpp can run the chat template that travels.

    Raises:
        ArtefactError: It cannot.
    """
    from loraloop.model.causal import CausalLM
    from loraloop.publish import gguf_model
    from loraloop.records import Export
    from loraloop.runtime.llama_cpp import LlamaCpp

    if not template.is_chat(version.manifest):
        return
    tokenizer = base.tokenizer()
    template.give(tokenizer, version.manifest)
    small = CausalLM(name="bundled:tiny").load()
    small.tokenizer.chat_template = tokenizer.chat_template
    with TemporaryDirectory() as folder:
        what = f"{version.name}-v{version.number}"
        gguf_model.write(Path(folder) / f"{what}.gguf", small, "f16")
        made = Export(form="gguf", dtype="f16", version=what, content="", base="", trained_on="none")
        LlamaCpp().open(Path(folder), made, base).close()


def _kept(publisher: Merged | Gguf, version: Version, folder: Path, registry: MlflowRegistry) -> list[Parity]:
    """What was measured of an export that is there already, and that a killed publish did not note.

    Raises:
        ArtefactError: It was altered, answered differently from the adapter, or was never measured, and that is asked
            for.
    """
    export = export_folder.read(folder)
    export_folder.require_unaltered(version, folder, export, registry)
    runtime, least = _runtime(export), publisher.min_agreement
    there = [each for each in export_folder.measured(folder) if each.runtime == runtime]
    if not there and least != 0:
        raise ArtefactError(
            f"{folder} holds this export, which was never measured: measure it with stage=verify path={folder} "
            f"runtime={runtime}, or accept it with publish.min_agreement=0"
        )
    for each in there:
        asked = each if least is None else replace(each, min_agreement=least)
        parity_report.require(asked, folder, "publish.min_agreement")
    known = {each.measured for each in version.manifest.parity}
    return [each for each in there if each.measured not in known]


def _export(place: Folder | Hub | S3, version: Version, registry: MlflowRegistry) -> Path:
    """The folder of the export that goes to a place, unaltered and measured.

    Raises:
        ConfigError: There is none, or several.
        ArtefactError: It was altered, or it did not answer as its adapter did, or nobody measured that.
    """
    folder = export_folder.find(version, place.export, (place.form,), registry, "publish.export")
    export = export_folder.read(folder)
    export_folder.require_unaltered(version, folder, export, registry)
    here = {each.measured for each in export_folder.measured(folder)}
    measured = [each for each in version.manifest.parity if each.form == export.form and each.measured in here]
    if not any(each.passed for each in measured):
        why = parity_report.summary(measured[-1]) if measured else "it was never measured"
        raise ArtefactError(
            f"{folder} is not published further: {why}; measure it with stage=verify path={folder} "
            f"runtime={_runtime(export)}"
        )
    return folder


def _runtime(export: Export) -> str:
    """The runtime in which an export is measured before it appears."""
    return "llama_cpp" if export.form.startswith("gguf") else "transformers"


def told(version: Version) -> dict[str, str]:
    """What a person should know of the weights that were published: packed ones are plain again."""
    storage = version.manifest.storage
    if storage == "plain":
        return {}
    return {"weights": f"its {storage} codes became float32 again: no program but loraloop reads them"}


def scores(version: Version, tracker: Tracker) -> Score | None:
    """What a version scored when it was measured; ``None`` where that is not known."""
    from loraloop.evaluation import store
    from loraloop.records import Score

    run = version.manifest.run_id
    if not run:
        return None
    try:
        return store.read(tracker.artifacts(run) / "evaluation" / "adapter")
    except DataError:
        metrics = tracker.read(run)["metrics"]
        final = {name.removeprefix("final/"): value for name, value in metrics.items() if name.startswith("final/")}
        return Score(rows=0, values={name: value for name, value in final.items() if "/" not in name})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gate:
    """Measures an export where it was written, before it appears under its name."""

    publisher: Merged | Gguf
    version: Version
    base: VersionBase
    known: parity.Recorded | None
    made: list[Parity] = field(default_factory=list)

    def __call__(self, folder: Path, export: Export) -> Parity | None:
        """See :data:`loraloop.protocols.Gate`."""
        runtime, least = self._runtime(), self.publisher.min_agreement
        if self.known is None:
            parity.require_loads(self.version, folder, export, runtime, self.base)
            return None
        measured = parity.measure(self.version, folder, export, runtime, self.known, self.base, least)
        parity_report.report(measured, self.version, "not published yet")
        parity_report.require(measured, "it was not published", "publish.min_agreement")
        self.made.append(measured)
        parity.write(measured, folder)  # it appears with the weights: a kill leaves no export whose measure is lost
        return measured

    def _runtime(self) -> Runtime:
        from loraloop.publish.gguf import Gguf
        from loraloop.runtime.llama_cpp import LlamaCpp
        from loraloop.runtime.transformers import Transformers

        return LlamaCpp(base=self.publisher.base) if isinstance(self.publisher, Gguf) else Transformers()
