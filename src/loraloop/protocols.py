"""What parts promise to each other. A stage names these types; the parts behind them never import one another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loraloop.records import (
    CanaryVerdict,
    Chunk,
    Collection,
    Dataset,
    Estimate,
    Example,
    GenerationRequest,
    LoadedModel,
    Manifest,
    Outcome,
    Page,
    Rollout,
    Served,
    Training,
    Verdict,
    Version,
)

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from sqlalchemy.engine import Connection
    from transformers import PretrainedConfig, PreTrainedModel

EvaluationCallback = Callable[[int, float], None]
"""Called with the step and the validation loss after every validation; raises PrunedError to end the training."""


class Lora(Protocol):
    """The shape of an adapter, as a trainer needs it."""

    @property
    def r(self) -> int:
        """Rank."""
        ...

    @property
    def dropout(self) -> float:
        """Of the adapter's inputs while training, 0..1."""
        ...

    @property
    def bias(self) -> str:
        """``none``, ``all`` or ``lora_only``: biases that train along."""
        ...

    @property
    def init(self) -> str:
        """How the adapter is initialised."""
        ...

    @property
    def use_dora(self) -> bool:
        """Whether magnitude and direction are trained apart (arXiv 2402.09353)."""
        ...

    @property
    def rank_pattern(self) -> Mapping[str, int]:
        """Other ranks by layer."""
        ...

    @property
    def alpha_pattern(self) -> Mapping[str, float]:
        """Other alphas by layer."""
        ...

    @property
    def mutates_base(self) -> bool:
        """Whether the initialisation moves a part of the base weights into the adapter."""
        ...

    def peft_config(self) -> LoraConfig:
        """PEFT's configuration of this adapter."""
        ...

    def check_model(self, model: PreTrainedModel) -> None:
        """Hold this adapter against a base model; the meta device suffices.

        Raises:
            ConfigError: It does not fit the model.
        """
        ...

    def trainable_parameters(self, model: PreTrainedModel) -> int:
        """How many parameters this adapter trains on ``model``."""
        ...


class Ocr(Protocol):
    """Anything that reads images."""

    def read(self, images: Iterable[Path]) -> Iterator[Page]:
        """Read images, in the order given, one page each; an unreadable image yields a quarantined page.

        Raises:
            MissingDependencyError: The engine is not installed; the message holds the line that installs it.
        """
        ...


class Source(Protocol):
    """Anything that yields examples and can tell a right answer from a wrong one."""

    def collect(self, ocr: Ocr | None) -> Collection:
        """Collect the examples; the same settings give the same examples in the same order.

        Args:
            ocr: Reader for sources that look at images; others ignore it.

        Raises:
            DataError: There is nothing usable; the message says what was found and why it was set aside.
        """
        ...

    def correct(self, example: Example, answer: str) -> bool:
        """Whether ``answer`` solves ``example`` by the source's own rule."""
        ...


class Run(Protocol):
    """One run being logged. Calls after an error of the backend never stop the training (they warn once)."""

    @property
    def id(self) -> str | None:
        """The run's id, or ``None`` when nothing is tracked."""
        ...

    @property
    def link(self) -> str | None:
        """Where a person sees the run."""
        ...

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; keys are dotted config keys such as ``lora.r``."""
        ...

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Queue metrics, sent in batches; keys such as ``train/loss``, ``eval/loss``, ``final/exact_match``."""
        ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file or a whole folder under ``folder``."""
        ...

    def text(self, text: str, name: str) -> None:
        """Keep a text as the artifact ``name``."""
        ...

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Keep a table of uniform rows as the artifact ``name`` (``.json``)."""
        ...

    def figure(self, figure: Any, name: str) -> None:
        """Keep a matplotlib figure as the artifact ``name`` (``.png``)."""
        ...

    def dataset(self, name: str, fingerprint: str, rows: int, context: str) -> None:
        """Log a dataset as an input of the run; ``context`` is ``training`` or ``validation``."""
        ...


class Tracker(Protocol):
    """Anything that logs runs."""

    @property
    def ui_command(self) -> str | None:
        """The line that opens the backend's pages, where it needs one."""
        ...

    def check(self) -> None:
        """Reach the backend once, before any work.

        Raises:
            TrackingError: It cannot be reached within 10 s or cannot be used; nothing was written.
        """
        ...

    def start(self, name: str, parent: str | None = None, resume: str | None = None) -> AbstractContextManager[Run]:
        """Open a run, nested under ``parent``, or go on with the run ``resume``.

        Leaving it marks it FINISHED, FAILED on an exception, KILLED on KeyboardInterrupt; a pruned trial (PrunedError)
        is KILLED too and carries the tag ``pruned`` with the reason.
        """
        ...

    def artifacts(self, run: str) -> Path:
        """Local folder with the artifacts of an earlier run (by id or unique name)."""
        ...

    def read(self, run: str) -> Mapping[str, Any]:
        """An earlier run by id or unique name: ``id``, ``name``, ``status``, ``params``, ``metrics``, ``tags``."""
        ...


class Trainer(Protocol):
    """Anything that trains an adapter."""

    def check_model(self, config: PretrainedConfig) -> None:
        """Refuse settings that the architecture cannot take.

        Raises:
            ConfigError: Such as a ``max_length`` above the model's positions.
        """
        ...

    def estimate(self, loaded: LoadedModel, lora: Lora, data: Dataset) -> Estimate:
        """What training would take; the model may be on the meta device."""
        ...

    def train(
        self,
        loaded: LoadedModel,
        lora: Lora,
        data: Dataset,
        run: Run,
        output: Path,
        resume: Path | None = None,
        on_evaluation: EvaluationCallback | None = None,
    ) -> tuple[PeftModel, Training]:
        """Train an adapter into ``output/adapter`` and return the model that carries it.

        Raises:
            TrainingError: The loss is not finite, or rows have no trainable token.
            PrunedError: ``on_evaluation`` ended the training; no adapter is left.
        """
        ...


class Registry(Protocol):
    """Anything that keeps adapter versions."""

    def register(self, adapter: Path, manifest: Manifest, run: str | None = None) -> Version:
        """Keep an adapter as the next version, alias ``candidate``; an equal one is returned with ``created=False``.

        Raises:
            RegistryError: The folder does not hold the weights that the manifest names, or its base has random weights.
        """
        ...

    def promote(
        self,
        number: int,
        alias: str,
        reason: str,
        event: str = "promote",
        numbers: Mapping[str, Any] | None = None,
    ) -> Version:
        """Point ``alias`` at a version and write it, as ``event`` with reason and numbers, into the ledger."""
        ...

    def release(self, alias: str, number: int, reason: str) -> None:
        """Take an alias away from a version, and write that into the ledger; nothing if it does not point there."""
        ...

    def resolve(self, reference: str) -> Version:
        """A version from ``models:/NAME@ALIAS``, ``models:/NAME/N``, ``@ALIAS`` or ``N``, its weights verified.

        Raises:
            RegistryError: There is no such version, or the weights do not have the manifest's SHA-256.
        """
        ...

    def champion(self) -> Version | None:
        """The version under the alias ``champion``, if there is one."""
        ...

    def record(self, event: str, number: int | None, reason: str, numbers: Mapping[str, Any]) -> None:
        """Append an event (``gate``, ``promote``, ...) to the ledger."""
        ...

    def history(self) -> Sequence[Any]:
        """Every entry of the verified ledger, oldest first: ``time``, ``event``, ``version``, ``alias``, ``reason``."""
        ...


class Backend(Protocol):
    """Anything that generates text with a base and many adapters. Its methods may be called from any thread or task."""

    def check(self) -> None:
        """Whether it can serve.

        Raises:
            ConfigError: It cannot; the message says what is missing.
        """
        ...

    def start(self) -> None:
        """Begin to serve."""
        ...

    def close(self) -> None:
        """End every answer and give everything back."""
        ...

    def loaded(self) -> Sequence[str]:
        """``base`` and the versions (``ocr@7``) that answer at once."""
        ...

    def load(self, model: str, version: Version) -> None:
        """Verify an adapter and make it answer under the name ``model``; live traffic goes on undisturbed.

        Raises:
            ModelError: It is damaged, altered, of another base, too large, or does not answer as it did when trained.
        """
        ...

    def unload(self, model: str) -> None:
        """Let an adapter finish what it is answering and forget it."""
        ...

    def tokens(self, prompt: str) -> int:
        """Tokens of a rendered prompt, the first one that the tokenizer adds included."""
        ...

    def limit(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    def render(self, messages: Sequence[Mapping[str, str]], model: str) -> str:
        """The prompt for a conversation (``role``, ``content``), as the model was trained to be asked."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """Generate an answer, chunk by chunk; closing the iterator ends it and frees its place.

        Raises:
            BusyError: The queue is full.
            ModelError: No such model is loaded.
        """
        ...


class Sessions(Protocol):
    """Anything that keeps served answers."""

    def keep(self, served: Served) -> None:
        """Keep an answer; it is on disk when this returns.

        Raises:
            StoreError: It could not be kept: the disk is full, the database locked or away.
        """
        ...

    def link(self, session: str) -> str:
        """The signed address under which a person rates the answer, below the server's own."""
        ...


class Metrics(Protocol):
    """Anything that counts what a server does. Nothing here blocks or raises."""

    def began(self) -> None:
        """A request came."""
        ...

    def ended(self, route: str, model: str, status: int, seconds: float) -> None:
        """A request is over.

        Args:
            route: The path's template, such as ``/v1/chat/completions``.
            model: What answered; empty where no model was asked.
            status: HTTP's.
            seconds: From its first byte to the last one of the answer.
        """
        ...

    def served(self, served: Served) -> None:
        """An answer was kept."""
        ...

    def text(self) -> bytes:
        """Everything that was counted, in Prometheus' text format."""
        ...


class Trigger(Protocol):
    """A rule by which ratings call for a new adapter."""

    @property
    def threshold(self) -> float:
        """Stars; an average below is what it looks for."""
        ...

    def decide(self, outcomes: Sequence[Outcome], since: str, now: str) -> Verdict:
        """Whether to train again (``passed``), and why or why not yet.

        Args:
            outcomes: The sessions that the reigning version answered since ``since``, oldest first.
            since: ISO 8601, UTC, when it began to reign.
            now: ISO 8601, UTC.
        """
        ...


class Canary(Protocol):
    """A rule by which a new version wins or loses against the stable one that serves at the same time."""

    @property
    def share(self) -> float:
        """Of the conversations that the new version answers."""
        ...

    @property
    def least_rating(self) -> float | None:
        """Stars below which it never promotes; ``None`` where it compares with the stable version alone."""
        ...

    def decide(self, rollout: Rollout, outcomes: Sequence[Outcome], now: str) -> CanaryVerdict:
        """What to do with a rollout.

        Args:
            rollout: The rollout.
            outcomes: Every session of it, of both versions, oldest first.
            now: ISO 8601, UTC.
        """
        ...


class Alerts(Protocol):
    """Anything that tells people."""

    def send(self, title: str, text: str) -> None:
        """Tell them; where that fails, the log says so and the caller goes on."""
        ...


class Database(Protocol):
    """A database whose transactions are durable; the connections are SQLAlchemy's."""

    @property
    def name(self) -> str:
        """As people may read it, without a password."""
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """A connection to read."""
        ...

    def write(self) -> AbstractContextManager[Connection]:
        """One transaction, on disk when the block ends, undone if it raises."""
        ...


class Publisher(Protocol):
    """Anything that copies a version to where others find it."""

    def publish(self, version: Version, metrics: Mapping[str, float] | None = None) -> str:
        """Copy adapter, manifest and a model card, whole or not at all; returns the address.

        Args:
            version: What to publish.
            metrics: Scores for the model card.

        Raises:
            RegistryError: The place cannot be reached or holds something else under that name.
        """
        ...
