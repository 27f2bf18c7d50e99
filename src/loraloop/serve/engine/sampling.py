"""The next token of each row, from its own logits and its own seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from loraloop.records import GenerationRequest


@dataclass(frozen=True, slots=True)
class Sampler:
    """How one answer's tokens are chosen; ``temperature`` 0 is greedy, ``top_k`` 0 is every token.

    Attributes:
        frequency: OpenAI's ``frequency_penalty``.
        presence: OpenAI's ``presence_penalty``.
        bias: Added to the logits of single tokens.
        drawn: How often each token was chosen so far.
    """

    temperature: float
    top_p: float
    top_k: int
    rng: np.random.Generator
    frequency: float = 0.0
    presence: float = 0.0
    bias: tuple[tuple[int, float], ...] = ()
    drawn: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, request: GenerationRequest) -> Sampler:
        """The sampler that a request describes."""
        import numpy as np

        return cls(
            request.temperature,
            request.top_p,
            request.top_k,
            np.random.default_rng(request.seed),
            request.frequency_penalty,
            request.presence_penalty,
            request.bias,
        )

    def changes(self) -> dict[int, float]:
        """What is added to the logits of the next token.

        ``-c[j] * frequency - (c[j] > 0) * presence``, where ``c[j]`` is how often token ``j`` was chosen before
        (OpenAI's API guide, "Frequency and presence penalties").
        """
        if not (self.bias or self.frequency or self.presence):
            return {}
        added = dict(self.bias)
        if self.frequency or self.presence:
            for token, count in self.drawn.items():
                added[token] = added.get(token, 0.0) - count * self.frequency - self.presence
        return added


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token per row of ``logits`` ``[rows, vocabulary]``."""
    logits = _changed(logits, [sampler.changes() for sampler in samplers])
    picks = logits.argmax(-1)
    drawn = [row for row, sampler in enumerate(samplers) if sampler.temperature > 0]
    if drawn:
        picks[drawn] = _draw(logits[drawn], [samplers[row] for row in drawn])
    found: list[int] = picks.tolist()
    for sampler, token in zip(samplers, found, strict=True):
        if sampler.frequency or sampler.presence:
            sampler.drawn[token] += 1
    return found


def _changed(logits: Tensor, changes: Sequence[dict[int, float]]) -> Tensor:
    """``logits`` with what is added to single tokens of each row; the caller's are left as they are."""
    import torch

    if not any(changes):
        return logits
    logits = logits.clone()
    for row, added in enumerate(changes):
        if added:
            tokens = torch.tensor(list(added), device=logits.device)
            logits[row, tokens] += torch.tensor(list(added.values()), device=logits.device, dtype=logits.dtype)
    return logits


def _draw(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """Temperature, then the ``top_k`` likeliest, then the nucleus of mass ``top_p`` (arXiv 1904.09751)."""
    import torch

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    scores = logits.double()
    scores = (scores - scores.amax(-1, keepdim=True)) / column([sampler.temperature for sampler in samplers])
    likely, tokens = scores.softmax(-1).sort(dim=-1, descending=True, stable=True)
    place = torch.arange(likely.shape[-1], device=logits.device)
    kept = place < column([sampler.top_k or likely.shape[-1] for sampler in samplers])
    likely = likely * kept
    likely = likely / likely.sum(-1, keepdim=True)
    before = likely.cumsum(-1) - likely
    likely = likely * ((before < column([sampler.top_p for sampler in samplers])) | (place == 0))
    mass = likely.cumsum(-1)
    uniform = column([sampler.rng.random() for sampler in samplers])
    at = torch.searchsorted(mass, uniform * mass[:, -1:], right=True)
    # Rounding may point behind the last; a row that is not finite has none, and must not take the others with it.
    return tokens.gather(-1, at.clamp_max((likely > 0).sum(-1, keepdim=True) - 1).clamp_min(0))[:, 0]


def likeliest(logits: Tensor, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Log-probability of ``token`` under one row's logits, and of the ``count`` likeliest tokens."""
    logs = logits.float().log_softmax(-1)
    top = logs.topk(min(count, logs.shape[-1]))
    return float(logs[token]), list(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def scores(logits: Tensor, prompt: Sequence[int], count: int) -> list[tuple[float | None, list[tuple[int, float]]]]:
    """For each token of a prompt what :func:`likeliest` tells of it; nothing comes before the first.

    Args:
        logits: After each token, ``[tokens, vocabulary]``.
        prompt: The tokens.
        count: How many of the likeliest tokens are told.
    """
    after = [likeliest(row, token, count) for row, token in zip(logits[:-1], prompt[1:], strict=True)]
    return [(None, []), *after]
