"""What parts promise to each other. A stage names these types; the parts behind them never import one another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from loraloop.records import (
    CanaryVerdict,
    Chunk,
    Collection,
    Dataset,
    Estimate,
    Example,
    Export,
    Fitting,
    GenerationRequest,
    Judgement,
    LoadedModel,
    Look,
    Outcome,
    Page,
    Parity,
    Rollout,
    Row,
    RuntimeAnswer,
    Score,
    Session,
    Training,
    Verdict,
    Version,
)

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from sqlalchemy.engine import Connection
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EvaluationCallback = Callable[[int, float], None]
"""Called with the step and the validation loss after every validation; raises PrunedError to end the training."""
Reward = Callable[[Example, str], float]
"""How good an answer to an example is; a source's :meth:`Source.correct` gives 1 for a right one and 0 for others."""


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
        """Check the adapter against a base model, which may be on the meta device.

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

    def warm(self) -> AbstractContextManager[None]:
        """Within it, what reads images stays from one call of :meth:`read` to the next."""
        ...


class Source(Protocol):
    """Anything that yields examples and can tell a right answer from a wrong one."""

    def collect(self, ocr: Ocr | None) -> Collection | Iterable[Example | Mapping[str, Any]]:
        """Collect the examples; the same settings give the same examples in the same order.

        A source of one's own may yield examples or plain dictionaries; ``source.screening.collect`` makes a collection.

        Args:
            ocr: Reader for sources that look at images; others ignore it.

        Raises:
            DataError: There is nothing usable; the message says what was found and why it was set aside.
        """
        ...

    def correct(self, example: Example, answer: str) -> bool:
        """Whether ``answer`` solves ``example`` by the source's own rule.

        A source without one is given this: the texts are equal but for white space around them.
        """
        return answer.strip() == example.output.strip()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """Everything that a trainer is given.

    Attributes:
        loaded: The base model; a trainer wraps it in place.
        lora: The adapter's shape.
        data: Rows to train on and to validate with; a row's ``example`` is what ``reward`` judges.
        run: Where metrics go.
        output: Folder for ``adapter/`` and ``checkpoints/``; it must not hold another run.
        reward: The source's own rule, for trainers that sample answers and learn from how good they are.
        resume: Output folder, or one checkpoint, of an interrupted run with the same settings and data; the result is
            the one that it would have had.
        on_evaluation: Called after every validation.
        begin_from: Folder of the adapter whose weights are the start; ``None`` begins a new adapter.
        config: The resolved configuration of model, lora and trainer, from which other processes build the same parts;
            ``None`` trains in this process.
    """

    loaded: LoadedModel
    lora: Lora
    data: Dataset
    run: Run
    output: Path
    reward: Reward
    resume: Path | None = None
    on_evaluation: EvaluationCallback | None = None
    begin_from: Path | None = None
    config: Mapping[str, Any] | None = None


class Trainer(Protocol):
    """Anything that trains an adapter."""

    def check_lora(self, lora: Lora) -> None:
        """Refuse adapters that the method cannot train.

        Raises:
            ConfigError: Such as one that changes the base, where the base is the method's reference.
        """
        ...

    def check_model(self, config: PretrainedConfig) -> None:
        """Refuse settings that the architecture cannot take.

        Raises:
            ConfigError: Such as a ``max_length`` above the model's positions.
        """
        ...

    def fitting(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, name: str) -> Fitting:
        """The rows that training would take, as the model sees them, and those that it leaves out.

        Args:
            rows: To train on or to validate with.
            tokenizer: With an end token.
            name: What the rows are for, for messages.

        Raises:
            TrainingError: Most of the rows are too long.
        """
        ...

    def estimate(self, loaded: LoadedModel, lora: Lora, data: Dataset) -> Estimate:
        """What training would take; the model may be on the meta device."""
        ...

    def train(self, job: TrainingJob) -> tuple[PeftModel, Training]:
        """Train an adapter into ``job.output/adapter`` and return the model that carries it.

        Raises:
            TrainingError: The loss is not finite, or rows have no trainable token.
            PrunedError: ``on_evaluation`` ended the training; no adapter is left.
        """
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

    def prepare(self, model: str) -> None:
        """Load a registered version, if it is not there: what an alias leads to is verified before it answers.

        Raises:
            ModelError: It cannot answer.
            RegistryError: There is no such version, or it is damaged.
            BusyError: There is no place for it now.
        """
        ...

    def unload(self, model: str) -> None:
        """Let an adapter finish what it is answering and forget it."""
        ...

    def forget(self) -> None:
        """Drop what is kept of prompts and answers that have ended, since sessions were erased.

        Raises:
            BusyError: It is shutting down.
            ModelError: It cannot.
        """
        ...

    def longest_token(self) -> int | None:
        """Most characters of a text that one token stands for; ``None`` where that is not known."""
        ...

    def knows(self, model: str) -> bool:
        """Whether :meth:`render` needs no look at the registry for that model."""
        ...

    def tokens(self, prompt: str) -> int:
        """Tokens of a rendered prompt, the first one that the tokenizer adds included."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens that a client chose.

        Raises:
            ModelError: One of them is none of the vocabulary.
        """
        ...

    def limit(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    def render(self, messages: Sequence[Mapping[str, Any]], model: str, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt for a conversation in OpenAI's form, as the model was trained to be asked.

        Args:
            messages: So far.
            model: Which answers.
            tools: That it may call.

        Raises:
            ModelError: The model's template refuses the conversation, or does not show its tools.
        """
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """Generate an answer, chunk by chunk; closing the iterator ends it and frees its place.

        Raises:
            BusyError: The queue is full.
            GrammarError: The answer cannot be held to the grammar.
            ModelError: No such model is loaded.
        """
        ...


class Sessions(Protocol):
    """Anything that keeps served answers."""

    async def keep_served(self, session: Session) -> None:
        """Keep an answer; it is on disk when this returns, and is kept also where the caller is cancelled.

        Raises:
            StoreError: It could not be kept: the disk is full, the database locked or away.
        """
        ...

    def session(self, session: str) -> Session:
        """A kept answer, by its id.

        Raises:
            DataError: There is none: it was not kept, or was erased.
            StoreError: The database cannot be read.
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

    def served(self, session: Session) -> None:
        """An answer was kept."""
        ...

    def alias_behind(self, alias: str, behind: bool) -> None:
        """Whether an alias stays on an earlier version because its own cannot be loaded."""
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

    def reads(self, since: str, now: str) -> Look:
        """The sessions that :meth:`decide` needs to see; arguments as there."""
        ...

    def decide(self, outcomes: Sequence[Outcome], since: str, now: str) -> Verdict:
        """Whether to train again (``passed``), and why or why not yet.

        Args:
            outcomes: Sessions that the active version answered since ``since``, at least those of :meth:`reads`, oldest
                first.
            since: ISO 8601, UTC, when it became active.
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


class Judging(Protocol):
    """A judge at work: it counts its calls and sends no more than it may."""

    def score(self, session: Session) -> Judgement:
        """How good the answer of a session is: 1 to 5."""
        ...

    def prefer(self, first: Session, second: Session) -> Judgement:
        """Which of two answers to the same task is better."""
        ...


class Judge(Protocol):
    """Anything that rates answers in the place of a person."""

    @property
    def by(self) -> str:
        """Who judges."""
        ...

    @property
    def rule(self) -> str:
        """A hash of all that decides what it is asked; another rule is another judge."""
        ...

    def open(self) -> Judging:
        """The judge at work."""
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


class Compression(Protocol):
    """Anything that makes smaller forms of an adapter."""

    def forms(self, adapter: Any) -> Iterable[tuple[str, Any]]:
        """Names and smaller forms.

        Args:
            adapter: A :class:`loraloop.compress.adapter.Adapter`, as each form is.

        Raises:
            ConfigError: The adapter has none that is smaller.
        """
        ...


class Publisher(Protocol):
    """Anything that copies a version to where others find it."""

    def publish(self, version: Version, scores: Score | None = None) -> str:
        """Copy adapter, manifest and a model card, whole or not at all; returns the address.

        Args:
            version: What to publish.
            scores: For the model card.

        Raises:
            RegistryError: The place cannot be reached or holds something else under that name.
        """
        ...


class BaseLoader(Protocol):
    """The base of a version, which is loaded when it is needed."""

    def skeleton(self) -> LoadedModel:
        """Its shape and tokenizer, without weights."""
        ...

    def load(self, quantised: bool = False) -> LoadedModel:
        """Load it in float32: with the stored weights, or as ``quantised`` as the adapter was trained on it."""
        ...


class BaseFiles(Protocol):
    """The files of a version's base, for a runtime that loads it beside the adapter."""

    def folder(self) -> Path:
        """Configuration, safetensors and tokenizer."""
        ...

    def gguf(self, scratch: Path) -> Path:
        """The base as GGUF: the file that it was read from, or one that is written into ``scratch``."""
        ...


Gate = Callable[[Path, Export], Parity | None]
"""Measures an export in its folder before it is published; raises ArtefactError where it answers differently.

``None``: it cannot be measured, and was asked to be published all the same.
"""


class RuntimeSession(Protocol):
    """An export that a runtime has loaded."""

    def answer(self, prompt: str, new_tokens: int) -> RuntimeAnswer:
        """The greedy answer to a rendered prompt, up to its end token or ``new_tokens``."""
        ...

    def top(self, prompt: str, count: int) -> dict[int, float]:
        """The ``count`` likeliest next tokens with their logits, or logarithms of their probabilities."""
        ...

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int]:
        """A conversation in OpenAI's form as tokens, by the chat template of the export, up to the next answer.

        Raises:
            ArtefactError: The runtime cannot run the template.
        """
        ...

    def computes(self) -> dict[str, str]:
        """The type in which it computes (``dtype``), where it tells."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class Runtime(Protocol):
    """Anything that loads an export and answers.

    Attributes:
        FORMS: The forms of :class:`loraloop.records.Export` that it loads.
    """

    FORMS: ClassVar[tuple[str, ...]]

    def versions(self) -> dict[str, str]:
        """The libraries that answer, with their versions."""
        ...

    def open(self, folder: Path, export: Export, base: BaseFiles) -> RuntimeSession:
        """Load an export; the base is for one that is an adapter alone.

        Raises:
            ArtefactError: It cannot be loaded.
        """
        ...
