"""The frozen records that parts hand to each other. Nothing here imports more than the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FrozenMap = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of the command line.

    Attributes:
        config: The resolved configuration of the groups that the stage uses.
        output: The job's own folder; a sweep gives each job one.
        choices: The chosen variant of each group.
    """

    stage: str
    seed: int
    config: FrozenMap
    output: Path
    choices: Mapping[str, str]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an example came from; ``None`` means that the fact does not apply."""

    source: str
    seed: int | None = None
    index: int | None = None
    image_path: str | None = None
    image_sha256: str | None = None
    ocr_confidence: float | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One instruction-tuning example.

    Attributes:
        task: Slice under which the example is scored, such as ``count``.
        rejected: A worse answer, for preference training.
        origin: Examples with the same non-empty origin (one image, one session task) stay on one side of the split.
    """

    input: str
    output: str
    instruction: str = ""
    task: str = ""
    rejected: str | None = None
    origin: str = ""
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that could not be used, and why."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class Collection:
    """What a source yields: the usable examples and everything that was set aside."""

    examples: tuple[Example, ...]
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True)
class Word:
    """A word read by OCR: ``confidence`` in 0..100, ``box`` as (left, top, width, height) in pixels of the image."""

    text: str
    confidence: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One image after OCR. ``status`` is ``ok`` or ``quarantined``; a quarantined page has a ``reason`` and no text."""

    image: str
    sha256: str
    width: int
    height: int
    text: str
    confidence: float
    words: tuple[Word, ...]
    engine: str
    steps: tuple[str, ...]
    seconds: float
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """An example as the model sees it: loss falls on ``completion`` (and the end token) only."""

    prompt: str
    completion: str
    example: Example
    rejected: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A split dataset.

    Attributes:
        fingerprint: SHA-256 over the rendered rows and the split; equal data has an equal fingerprint.
    """

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    fingerprint: str
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Identity of a base model.

    Attributes:
        sha256: Hash of the weights and the configuration; of the configuration alone when ``weights`` is ``random``.
        quantization: ``none``, ``nf4`` or ``nf4-double``.
        weights: ``pretrained`` or ``random``; an adapter of a random base is never registered.
    """

    name: str
    revision: str | None
    sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str | None
    quantization: str
    dtype: str
    weights: str = "pretrained"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base model in memory with its tokenizer and identity."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base: Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run is expected to take, before it starts. Memory in bytes, time in seconds."""

    trainable_parameters: int
    total_parameters: int
    steps: int
    tokens: int
    memory_bytes: int
    seconds: float

    @property
    def trainable_share(self) -> float:
        """Trainable parameters over all parameters, 0..1."""
        return self.trainable_parameters / max(1, self.total_parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a training run took and left.

    Attributes:
        adapter: Folder with ``adapter_config.json`` and ``adapter_model.safetensors`` in PEFT's layout.
        tokens: Tokens the model was trained on, padding excluded.
        history: One mapping per logged step: ``step`` and metrics such as ``train/loss``.
    """

    adapter: Path
    trainable_parameters: int
    total_parameters: int
    steps: int
    seconds: float
    tokens: int
    peak_memory_bytes: int
    history: tuple[FrozenMap, ...] = ()

    @property
    def tokens_per_second(self) -> float:
        """Trained tokens per second of training, padding excluded."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def trainable_share(self) -> float:
        """Trainable parameters over all parameters, 0..1."""
        return self.trainable_parameters / max(1, self.total_parameters)


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer of a model beside the truth."""

    task: str
    prompt: str
    expected: str
    answer: str
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How a model did on a held-out set; rates are in 0..1, BLEU and chrF in 0..100.

    Attributes:
        loss: Mean negative log-likelihood per completion token, in nats.
        task_accuracy: Share of answers that the source's own rule accepts.
        slices: The same metrics per task.
    """

    rows: int
    loss: float
    perplexity: float
    exact_match: float
    task_accuracy: float
    rouge_l: float
    bleu: float
    chrf: float
    slices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    generations: tuple[Generation, ...] = ()

    def metrics(self) -> dict[str, float]:
        """The headline metrics by name, without slices and generations."""
        names = ("loss", "perplexity", "exact_match", "task_accuracy", "rouge_l", "bleu", "chrf")
        return {name: float(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an adapter is, kept beside its weights (promise T7). JSON-ready through :meth:`to_dict`."""

    base: Base
    rank: int
    alpha: float
    targets: tuple[str, ...]
    dataset_fingerprint: str
    template: str
    run_id: str | None
    parent_run_id: str | None
    weights_sha256: str
    loraloop_version: str

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: FrozenMap) -> Manifest:
        """Inverse of :meth:`to_dict`."""
        rest = dict(data)
        return cls(base=Base(**rest.pop("base")), targets=tuple(rest.pop("targets")), **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A registered adapter: ``number`` counts from 1; ``path`` is a local folder with the adapter and its manifest."""

    name: str
    number: int
    aliases: tuple[str, ...]
    path: Path
    manifest: Manifest
    created: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """A gate's verdict with the reason in one sentence and the numbers that it was taken on."""

    passed: bool
    reason: str
    numbers: FrozenMap
