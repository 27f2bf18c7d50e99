"""The frozen records that parts hand to each other. Nothing here imports more than the standard library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Identity of a base model.

    Attributes:
        sha256: Hash of the weights and the configuration; of the configuration alone when ``weights`` is ``random``.
        quantization: ``none``, ``nf4`` or ``nf4-double``.
        dtype: Of the weights; of the computation where they are quantised.
        weights: ``pretrained`` or ``random``; an adapter of a random base is never registered.
        quantizer: What quantised them; ``None`` where they are not, and in a manifest of an earlier version.
        block_size: How many weights share a scale; ``None`` likewise.
    """

    name: str
    revision: str | None
    sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str | None
    quantization: str
    dtype: str
    weights: str = "pretrained"
    quantizer: str | None = None
    block_size: int | None = None


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
class Probe:
    """What a trained adapter made of a fixed prompt: its likeliest next tokens, and the logits of these."""

    prompt: str
    tokens: tuple[int, ...]
    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A mean over the same rows before and after, and the 95% interval of the paired change."""

    before: float
    after: float
    low: float
    high: float

    @property
    def change(self) -> float:
        """By how much it rose."""
        return self.after - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class General:
    """What a training did to the answers to general instructions: the base before, the adapter after.

    Attributes:
        instructions_sha256: Of the set of instructions.
        rows: How many were measured.
        loss: Of the reference answers, in nats a token.
        rules: Share of the answers that keep the instruction's rules.
        slices: The loss by kind of instruction.
        rules_p: Probability that so many fewer rules are kept by chance, one-sided.
    """

    instructions_sha256: str
    rows: int
    loss: Change
    rules: Change
    slices: Mapping[str, Change]
    rules_p: float = 1.0

    @classmethod
    def from_dict(cls, data: FrozenMap) -> General:
        """Inverse of :func:`dataclasses.asdict`."""
        rest = dict(data)
        slices = {task: Change(**each) for task, each in rest.pop("slices").items()}
        return cls(loss=Change(**rest.pop("loss")), rules=Change(**rest.pop("rules")), slices=slices, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an adapter is, kept beside its weights (promise T7). JSON-ready through :meth:`to_dict`.

    Attributes:
        dataset_fingerprint: ``None`` for an adapter that was trained elsewhere.
        probe: By it a server sees that the adapter answers as it did when it was trained.
        continued_from: Name and number of the version whose weights its training began with.
        general: What became of the base's general ability, where ``evaluation.general`` measured that.
        storage: How its weights are kept, see :mod:`loraloop.core.packing`.
        compressed_from: Name and number of the version that it is a smaller form of.
        combined_from: Names, numbers and weights of the versions that it was made of.
        parity: How its exports answered beside it, the last measurement of each form and runtime.
    """

    base: Base
    rank: int
    alpha: float
    targets: tuple[str, ...]
    dataset_fingerprint: str | None
    template: str
    run_id: str | None
    parent_run_id: str | None
    weights_sha256: str
    loraloop_version: str
    probe: Probe | None = None
    continued_from: str | None = None
    general: General | None = None
    storage: str = "plain"
    compressed_from: str | None = None
    combined_from: tuple[str, ...] = ()
    parity: tuple[Parity, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists; without ``parity`` where nothing was compared."""
        made = asdict(self)
        if not self.parity:
            del made["parity"]
        return made

    @classmethod
    def from_dict(cls, data: FrozenMap) -> Manifest:
        """Inverse of :meth:`to_dict`."""
        rest = dict(data)
        probe = rest.pop("probe", None)
        if probe is not None:
            probe = Probe(prompt=probe["prompt"], tokens=tuple(probe["tokens"]), logits=tuple(probe["logits"]))
        general = rest.pop("general", None)
        rest["combined_from"] = tuple(rest.get("combined_from", ()))
        return cls(
            base=Base(**rest.pop("base")),
            targets=tuple(rest.pop("targets")),
            probe=probe,
            general=None if general is None else General.from_dict(general),
            parity=tuple(_parity(each) for each in rest.pop("parity", ())),
            **rest,
        )


def _parity(data: FrozenMap) -> Parity:
    rest = dict(data)
    scores = {name: Compared(**each) for name, each in rest.pop("scores").items()}
    logits = Logits(**found) if (found := rest.pop("logits")) else None
    differences = tuple(Difference(**each) for each in rest.pop("differences"))
    return Parity(scores=scores, logits=logits, differences=differences, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeAnswer:
    """What an export answered: the text, that of each token, and whether an end token came within the limit."""

    text: str
    tokens: tuple[str, ...]
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A registered adapter: ``number`` counts from 1; ``path`` is a local folder with the adapter and its manifest."""

    name: str
    number: int
    aliases: tuple[str, ...]
    path: Path
    manifest: Manifest
    created: bool = True


Agent = Literal["validator", "actor", "coordinator", "recovery"]
AGENTS: tuple[str, ...] = get_args(Agent)
"""The roles that ``session.json`` can name, and that examples of sessions are sliced by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What a person thinks of an answer.

    Attributes:
        stars: 1 to 5.
        issues: What went wrong: words such as ``timeout``; an imported session may bring others.
        correction: The answer as it should have been; nothing is trained on it before it was reviewed.
    """

    stars: int
    comment: str = ""
    issues: tuple[str, ...] = ()
    correction: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One served conversation, and what people made of it (promise L1). ``None`` means: not known. Times in seconds.

    The server makes it of an answer, the store keeps it and adds what came later, ``session.json`` carries it, and
    training reads it.

    Attributes:
        id: Unique; part of the rating link.
        prompt: The conversation in OpenAI's form, or the text that was to be completed, as plain JSON.
        tools: JSON schemas of the tools that were offered.
        time: ISO 8601, UTC, when the request came.
        asked: The model as the client named it: ``base``, ``ocr@champion``, ``agent:validator``.
        answered: What answered: ``base`` or an immutable version such as ``ocr@7``.
        role: The agent role, where one was asked for.
        answer: The text that was given.
        iterations: Screens and tool calls, of an imported session: the JSON of its log.
        status: ``ok``, ``error``, ``timeout`` or ``cancelled``.
        duration: From the request to the last token.
        first_token: From the request to the first token.
        retries: Which repetition of the same task this was; 0 for the first.
        conversation: What the client says its request is part of; a rollout answers all of it with one version.
        conversation_id: What the store found it to be part of; ``None`` before it is kept, and in older tables.
        follows: The session whose answer the request says that it goes on from; the store links by it and forgets it.
        client: Who asked: what the request says of its user, else the name of the key.
        asked_key: Name of the API key that the request came with.
        rated_key: Name of the API key that the rating came with; a rating link needs none.
        refused: Corrections that a person rejected in review, or replaced by other words.
        rollout: Under which rollout ``answered`` was chosen.
        rating: What a person gave; as the store returns it, without the correction, which may wait for review.
        rated: ISO 8601, UTC, when they gave it.
        implied: The stars that status, duration and retries imply (promise L2).
        correction: What it should have answered, as a person accepted or edited it.
    """

    id: str
    prompt: Any
    time: str | None = None
    asked: str | None = None
    answered: str | None = None
    role: str | None = None
    answer: str | None = None
    iterations: Sequence[Any] | None = None
    status: str | None = None
    duration: float | None = None
    first_token: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    retries: int = 0
    tools: Any = None
    conversation: str | None = None
    client: str | None = None
    rollout: str | None = None
    rating: Rating | None = None
    rated: str | None = None
    implied: int | None = None
    correction: str | None = None
    asked_key: str | None = None
    rated_key: str | None = None
    refused: tuple[str, ...] = ()
    conversation_id: str | None = None
    follows: str | None = None

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Role and text of every message; a prompt is one of the user."""
        if isinstance(self.prompt, str):
            return [("user", self.prompt)]
        return [
            (str(turn["role"]), str(turn.get("content") or "")) for turn in self.prompt if isinstance(turn, Mapping)
        ]

    @property
    def instruction(self) -> str:
        """The system messages on lines of their own; empty where there is no other message."""
        return self._parts[0]

    @property
    def task(self) -> str:
        """The other messages on lines of their own; the system messages where there is no other one."""
        return self._parts[1]

    @property
    def _parts(self) -> tuple[str, str]:
        system = "\n".join(text for role, text in self.turns if role == "system")
        others = "\n".join(text for role, text in self.turns if role != "system")
        return (system, others) if others else ("", system)

    @property
    def prompt_text(self) -> str:
        """The whole prompt, its messages on lines of their own."""
        return "\n".join(text for _, text in self.turns)

    @property
    def agent(self) -> str | None:
        """The role, where it is one of :data:`AGENTS`."""
        return self.role if self.role in AGENTS else None

    @property
    def stars(self) -> int | None:
        """What a person gave, 1 to 5."""
        return None if self.rating is None else self.rating.stars

    @property
    def issues(self) -> tuple[str, ...]:
        """What went wrong, as the person who rated it put it."""
        return () if self.rating is None else self.rating.issues

    @property
    def success(self) -> bool | None:
        """Whether it came to its end."""
        return None if self.status is None else self.status == "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A session without its texts, with what is missing filled in: what rules and simulations decide on.

    A rule looks at tens of thousands of them at once, and the simulation makes them up without any conversation.
    :func:`loraloop.feedback.outcomes.outcome` derives them from sessions, and nothing else does.

    Attributes:
        time: ISO 8601, UTC, when the request came.
        conversation: Sessions of one conversation are not independent of each other; a session on its own is its own.
        rater: Who rated, or would have; ``None`` where nobody knows.
        answered: ``base`` or an immutable version such as ``ocr@7``.
        rollout: Under which rollout ``answered`` was chosen.
        success: Whether it came to its end; ``None`` if the client left, which says nothing.
        stars: What a person gave, 1 to 5.
        rated: ISO 8601, UTC, when they gave it; ``None`` where nobody knows, which is taken for ``time``.
        duration: Seconds.
    """

    session: str
    time: str
    conversation: str
    rater: str | None
    answered: str
    rollout: str | None = None
    success: bool | None = None
    stars: int | None = None
    rated: str | None = None
    duration: float | None = None

    @property
    def version(self) -> int:
        """Number of the version that answered; 0, which no version has, where it was none."""
        found = self.answered.rpartition("@")[2]
        return int(found) if found.isdecimal() and len(found) < 19 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Which sessions a trigger looks at; without a bound, all of them.

    Attributes:
        rated_since: ISO 8601, UTC: those that were rated then or later.
        latest: The latest so many.
    """

    rated_since: str | None = None
    latest: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A canary: a share of conversations is answered by a new version, the others by the stable one (promise L5).

    Attributes:
        model: The registered model that both are versions of.
        share: Of the conversations that the canary answers, in 0..1.
        began: ISO 8601, UTC.
    """

    id: str
    role: str
    model: str
    stable: int
    canary: int
    share: float
    began: str

    def version(self, conversation: str) -> int:
        """The version that answers ``conversation``: always the same one, whoever asks and on whichever server."""
        digest = hashlib.sha256(f"{self.id}|{conversation}".encode()).digest()
        return self.canary if int.from_bytes(digest[:8], "big") < self.share * 2**64 else self.stable


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryVerdict:
    """What a canary's rule says, with the reason in one sentence and the numbers that it was taken on.

    ``wait``: go on as it is. ``stop``: end without a promotion (too little data, inconclusive at the cap, or an
    assignment that is not as it was meant), which somebody should look at.
    """

    action: Literal["promote", "rollback", "wait", "stop"]
    reason: str
    numbers: FrozenMap


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
