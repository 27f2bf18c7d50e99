"""What an adapter is: its base, its manifest, and the version that a registry makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loraloop.records.parity import Compared, Difference, Logits, Parity

FrozenMap = Mapping[str, Any]


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
        lm_eval: What became of ``TASK/METRIC`` of lm-eval, where ``evaluation.lm_eval`` measured that.
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
    lm_eval: Mapping[str, Change] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists; without ``parity`` and ``lm_eval`` where nothing was compared."""
        made = asdict(self)
        for name in ("parity", "lm_eval"):
            if not made[name]:
                del made[name]
        return made

    @classmethod
    def from_dict(cls, data: FrozenMap) -> Manifest:
        """Inverse of :meth:`to_dict`."""
        rest = dict(data)
        probe = rest.pop("probe", None)
        if probe is not None:
            probe = Probe(prompt=probe["prompt"], tokens=tuple(probe["tokens"]), logits=tuple(probe["logits"]))
        general, tasks = rest.pop("general", None), rest.pop("lm_eval", None)
        rest["combined_from"] = tuple(rest.get("combined_from", ()))
        return cls(
            base=Base(**rest.pop("base")),
            targets=tuple(rest.pop("targets")),
            probe=probe,
            general=None if general is None else General.from_dict(general),
            parity=tuple(_parity(each) for each in rest.pop("parity", ())),
            lm_eval=None if tasks is None else {name: Change(**each) for name, each in tasks.items()},
            **rest,
        )


def _parity(data: FrozenMap) -> Parity:
    rest = dict(data)
    scores = {name: Compared(**each) for name, each in rest.pop("scores").items()}
    logits = Logits(**found) if (found := rest.pop("logits")) else None
    differences = tuple(Difference(**each) for each in rest.pop("differences"))
    return Parity(scores=scores, logits=logits, differences=differences, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A registered adapter: ``number`` counts from 1; ``path`` is a local folder with the adapter and its manifest."""

    name: str
    number: int
    aliases: tuple[str, ...]
    path: Path
    manifest: Manifest
    created: bool = True
