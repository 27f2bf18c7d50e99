"""The frozen records that parts hand to each other. Nothing here imports more than the standard library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from loraloop.records.adapter import Base as Base
from loraloop.records.adapter import Change as Change
from loraloop.records.adapter import General as General
from loraloop.records.adapter import Manifest as Manifest
from loraloop.records.adapter import Probe as Probe
from loraloop.records.adapter import Version as Version
from loraloop.records.conversation import Example as Example
from loraloop.records.conversation import Message as Message
from loraloop.records.conversation import Provenance as Provenance
from loraloop.records.conversation import ToolCall as ToolCall
from loraloop.records.judgement import Judgement as Judgement
from loraloop.records.parity import Compared as Compared
from loraloop.records.parity import Difference as Difference
from loraloop.records.parity import Export as Export
from loraloop.records.parity import Logits as Logits
from loraloop.records.parity import Parity as Parity
from loraloop.records.session import AGENTS as AGENTS
from loraloop.records.session import Agent as Agent
from loraloop.records.session import CanaryVerdict as CanaryVerdict
from loraloop.records.session import Look as Look
from loraloop.records.session import Outcome as Outcome
from loraloop.records.session import Rating as Rating
from loraloop.records.session import Rollout as Rollout
from loraloop.records.session import Session as Session
from loraloop.records.trace import Assessment as Assessment
from loraloop.records.trace import Trace as Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")
FrozenMap = Mapping[str, Any]

SLOWEST = 3  # times the estimated seconds that runs on an idle machine took at most


class Trial(Protocol):
    """One trial of a study, as the job that carries it out sees it."""

    @property
    def number(self) -> int:
        """Its number in the study, from 0."""
        ...

    @property
    def parent(self) -> str | None:
        """The sweep's own run, under which the trial's run is nested."""
        ...

    def report(self, step: int, loss: float) -> None:
        """Tell the study a validation loss.

        Raises:
            PrunedError: The trial is not worth going on with.
        """
        ...

    def leads(self, value: float) -> bool:
        """Whether no trial that has ended is better than ``value``."""
        ...

    def note(self, **attributes: Any) -> None:
        """Keep facts with the trial, such as its run's id."""
        ...

    def finish(self, values: float | Sequence[float]) -> None:
        """Keep the result with the trial, where it outlives a launcher that does not deliver it."""
        ...


class Cache(Protocol):
    """What the jobs of one multirun in one process share."""

    def get(self, name: str, key: str, make: Callable[[], T]) -> T:
        """What ``make`` makes, or what it made for the last job that asked for ``name`` with an equal ``key``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of the command line.

    Attributes:
        config: The resolved configuration of the groups that the stage uses.
        output: The job's own folder; a sweep gives each job one.
        choices: The chosen variant of each group.
        cache: What the jobs of a multirun share; ``None`` for a job on its own.
        trial: What the job is in a sweep that a study steers.
        multirun: Whether it is one of several that are compared: then it moves no alias.
    """

    stage: str
    seed: int
    config: FrozenMap
    output: Path
    choices: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    cache: Cache | None = None
    trial: Trial | None = None
    multirun: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A stage with its job and parts: built and checked, not begun.

    Attributes:
        stage: A function, or a class whose instance is run; its parameters are ``job`` and the names of ``parts``.
    """

    stage: Callable[..., Any]
    job: Job
    parts: FrozenMap

    def __call__(self) -> Any:
        """Run the stage."""
        made = self.stage(job=self.job, **self.parts)
        return made.run() if isinstance(self.stage, type) else made


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a stage left behind, as :func:`loraloop.run` gives it back.

    Attributes:
        stage: Name of the stage that ran.
        value: What the stage returned, such as the objective of an experiment; ``None`` where it returns nothing.
        run: Id of the tracked run that trained the adapter; ``None`` without an adapter or a tracker.
        scores: Metrics by what was measured, ``base`` and ``adapter``; empty where nothing was.
        adapter: Folder of the adapter in PEFT's layout, if one was trained.
        output: The job's own folder.
    """

    stage: str
    value: Any
    run: str | None
    scores: Mapping[str, Mapping[str, float]]
    adapter: Path | None
    output: Path


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

    def to_row(self) -> dict[str, Any]:
        """Plain values for a file; a word is ``{text, conf, box}``."""
        words = [{"text": word.text, "conf": word.confidence, "box": list(word.box)} for word in self.words]
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {"words": words, "steps": list(self.steps)}


@dataclass(frozen=True, slots=True)
class Row:
    """An example as the model sees it.

    Attributes:
        prompt: What is asked, as a server would render it.
        completion: The last turn that is learned; the end token follows it.
        rejected: A worse completion.
        earlier: Characters of ``prompt``, from and to, that are learned turns before the last, their ends included.
        template: By which it was rendered.
    """

    prompt: str
    completion: str
    example: Example
    rejected: str | None = None
    earlier: tuple[tuple[int, int], ...] = ()
    template: str = field(default="", compare=False)


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


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base model in memory with its tokenizer and identity."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base: Base


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as tokens, never cut.

    Attributes:
        labels: The tokens that the loss falls on, -100 elsewhere.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def scored(self) -> int:
        """Tokens that the loss falls on (the first is never predicted)."""
        return sum(label != -100 for label in self.labels[1:])

    @property
    def start(self) -> int:
        """Tokens before the first one that is learned."""
        return next((place for place, label in enumerate(self.labels) if label != -100), len(self.labels))


@dataclass(frozen=True, slots=True)
class Fitting:
    """The rows that a trainer takes.

    Attributes:
        rows: In their order.
        sides: The rows' tokens; preference training has a second list, those with the rejected answers.
        left_out: The other rows, and why.
        shortened: How many of ``rows`` lack the oldest turns of their conversation.
    """

    rows: list[Row]
    sides: tuple[list[Encoded], ...]
    left_out: tuple[Quarantined, ...]
    shortened: int = 0

    def lengths(self) -> list[int]:
        """Tokens that the model sees of each row, of all its sides."""
        return [sum(len(side.input_ids) for side in sides) for sides in zip(*self.sides, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run is expected to take, before it starts. Memory in bytes of each device, time in seconds."""

    trainable_parameters: int
    total_parameters: int
    steps: int
    tokens: int
    memory_bytes: int
    seconds: float
    devices: int = 1

    @property
    def most_seconds(self) -> float:
        """The end of the range that begins with ``seconds``: runs have taken up to three times as long."""
        return SLOWEST * self.seconds

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
        resumed_tokens: Those of them before the run was resumed; ``seconds`` are those since.
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
    resumed_tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Trained tokens per second of training, padding excluded."""
        return (self.tokens - self.resumed_tokens) / max(self.seconds, 1e-9)

    @property
    def trainable_share(self) -> float:
        """Trainable parameters over all parameters, 0..1."""
        return self.trainable_parameters / max(1, self.total_parameters)


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer of a model beside the truth.

    Attributes:
        nll: Negative log-likelihood of the expected answer in nats; ``None`` in a score of an earlier version.
        preferred: Whether the expected answer is likelier than the rejected one; ``None`` without one.
        calls: How its tool calls compare with the expected ones, by the names of
            :class:`loraloop.core.tool_calls.Judgement`; ``None`` where none is expected.
        conversation: What the answers in one conversation share; empty for an answer that stands alone.
    """

    task: str
    prompt: str
    expected: str
    answer: str
    correct: bool
    nll: float | None = None
    preferred: bool | None = None
    calls: Mapping[str, bool] | None = None
    conversation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How a model did on held-out rows: a mapping of metrics, which :data:`loraloop.core.metrics.METRICS` defines.

    Attributes:
        values: Each metric's value by name; one that does not apply to the rows is absent.
        errors: Standard errors by name, in the metric's unit; absent where none is known.
        slices: The score of each task's rows, without generations.
    """

    rows: int
    values: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    slices: Mapping[str, Score] = field(default_factory=dict)
    generations: tuple[Generation, ...] = ()

    def __getitem__(self, metric: str) -> float:
        """The value of a metric.

        Raises:
            KeyError: It was not measured.
        """
        return self.values[metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeAnswer:
    """What an export answered: the text, that of each token, and whether an end token came within the limit."""

    text: str
    tokens: tuple[str, ...]
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What an answer is held to: JSON, calls of tools, or either; or each call in an answer that is free otherwise.

    Attributes:
        schema: JSON schema of the whole answer; ``None`` allows no JSON but calls.
        tools: Names of the tools that may be called, with the schemas of their arguments.
        parallel: Whether several calls may follow each other.
        free: Whether text may stand around the calls, or alone.
    """

    schema: FrozenMap | None = None
    tools: tuple[tuple[str, FrozenMap], ...] = ()
    parallel: bool = True
    free: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What a backend is to generate.

    Attributes:
        model: ``base`` or an immutable version such as ``ocr@7``.
        prompt: Text, rendered already.
        temperature: 0 is greedy.
        stop: Texts that end the answer and are not part of it.
        seed: Of the sampling; the same seed gives the same answer, whatever else is being answered.
        logprobs: How many alternatives to tell per token; ``None`` tells nothing.
        deadline: Seconds after which the answer ends as it is.
        ids: The prompt's tokens, where the client chose them; they are taken as they are, and ``prompt`` is their text.
        echo: Whether the first chunk is the prompt, with the log-probabilities of its tokens.
        frequency_penalty: Taken from a token's logit for each time that it stands in the answer so far.
        presence_penalty: Taken once from the logit of every token that stands in the answer so far.
        bias: Added to the logits of single tokens.
        grammar: What the answer is held to; ``None`` leaves it free.
        cache_scope: What was read for a request is used again for those of the same scope alone: how fast one answers
            tells what another has asked.
    """

    model: str
    prompt: str
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    deadline: float = 60.0
    ids: tuple[int, ...] | None = None
    echo: bool = False
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None
    cache_scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    r"""The next part of an answer; the last one has a ``finish``.

    Attributes:
        text: What is certain by now; text that may be the beginning of a stop string is held back.
        tokens: How many tokens were generated for it.
        logprobs: For each token: its text, its log-probability, and the alternatives asked for. A part of a character
            is written as ``bytes:\xf0\x9f``; a prompt's first token has no log-probability.
        finish: ``stop`` or ``length``; ``None`` before the end.
        echo: Whether it is the prompt, and no part of the answer.
        reused: How many of the prompt's tokens were read for an earlier answer; told once.
    """

    text: str
    tokens: int = 0
    echo: bool = False
    logprobs: tuple[tuple[str, float | None, Mapping[str, float]], ...] = ()
    finish: str | None = None
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's verdict with the reason in one sentence and the numbers that it was taken on."""

    passed: bool
    reason: str
    numbers: FrozenMap
