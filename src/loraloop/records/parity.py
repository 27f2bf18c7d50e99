"""Exports of a version, and how their answers compare with those of the adapter."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was exported.

    Attributes:
        form: ``adapter`` (a PEFT folder), ``merged``, ``gguf`` or ``gguf-lora``.
        dtype: Of the weights in the files.
        version: ``NAME/NUMBER`` in the registry.
        content: Hash by which the registry recognises the adapter.
        base: Name of the base.
        trained_on: The base's quantisation while the adapter was trained.
        changed: Share of the adapted weights, but for zeros, that the merge changed; ``None`` where nothing was merged.
        merged_into: ``unquantised`` or ``dequantised`` weights; ``None`` where nothing was merged.
        files: SHA-256 by name.
    """

    form: str
    dtype: str
    version: str
    content: str
    base: str
    trained_on: str
    changed: float | None = None
    merged_into: str | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def four_bits(self) -> bool:
        """Whether the adapter was trained on 4-bit weights, or the files hold such."""
        return self.trained_on != "none" or self.dtype.startswith("q4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first token of an answer that differs from the recorded text, which continues otherwise."""

    prompt: str
    token: int
    export: str
    recorded: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A score of the export beside the recorded one, on the same rows; standard errors where they are known."""

    value: float
    error: float | None
    recorded: float
    recorded_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """The likeliest next tokens after the manifest's probe prompt.

    Attributes:
        tokens: How many the manifest records.
        shared: How many of them are among as many likeliest tokens of the export.
        difference: Largest difference of a shared token's logit, both sides shifted to a mean of 0 over the shared
            ones: servers tell logarithms of probabilities, which are logits but for a constant. ``None`` where none is
            shared or one is not finite.
    """

    tokens: int
    shared: int
    difference: float | None

    @property
    def off(self) -> str:
        """``difference`` in print."""
        return "not known" if self.difference is None else f"{self.difference:.2g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """A comparison of an export, in a runtime, with its adapter.

    Attributes:
        runtime: Its name in the configuration.
        form: See :class:`Export`; so is ``dtype``.
        versions: Of the libraries that answered.
        measured: When, in UTC.
        rows: How many recorded answers were compared.
        agreement: Share of equal greedy answers, 0..1; ``min_agreement`` was asked.
        scores: By metric.
        logits: ``None`` where the manifest has no probe.
        load_seconds: Time until the runtime could answer.
        tokens_per_second: Of the answers, one at a time, reading of the prompts included.
        bytes: Of the files.
    """

    runtime: str
    form: str
    dtype: str
    versions: dict[str, str]
    machine: str
    measured: str
    rows: int
    agreement: float
    min_agreement: float
    scores: dict[str, Compared]
    logits: Logits | None
    load_seconds: float
    tokens_per_second: float
    bytes: int
    differences: tuple[Difference, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether enough answers are equal."""
        return self.agreement >= self.min_agreement

    @property
    def name(self) -> str:
        """Form, weights and runtime in one word."""
        return f"{self.form}-{self.dtype}-{self.runtime}"
