"""Log-likelihoods and greedy answers from one pass over each row, whose answer goes on from where it differs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloop.core import key_values
from loraloop.core.tokens import IGNORED
from loraloop.evaluation.encode import grouped
from loraloop.evaluation.infer import Advance, answers, end_tokens, inference, likelihoods, right_padded

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

FEWER = 0.75
"""Rows that have ended leave the batch when no more than this share goes on."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A row to measure.

    Attributes:
        ids: Tokens of prompt and expected answer, its end token included.
        start: How many of them are the prompt's.
        prompt: Tokens of the prompt as a question; where positions are few these are not the first ``start`` of
            ``ids``.
    """

    ids: list[int]
    start: int
    prompt: list[int]


Measured = tuple[list[float], list[int], list[str]]


def measure(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Asked],
    new_tokens: int,
    batch_tokens: int,
    advance: Advance,
) -> Measured:
    """Negative log-likelihoods in nats, numbers of scored tokens, and greedy answers of at most ``new_tokens`` tokens.

    The model reads a prompt once. As far as its most likely tokens are the expected ones, these are its greedy answer;
    from the first other token on it goes on, with the keys and values of what it has read. A row whose prompt is
    another one as a question, and a model that keeps another state, are measured and asked apart.

    Args:
        model: A causal model.
        tokenizer: Its tokenizer.
        rows: What is measured.
        new_tokens: Where answers end at the latest.
        batch_tokens: Tokens of a batch, padding and answers included.
        advance: Called with the number of rows that were measured, and again when they have answered.
    """
    ends = end_tokens(model, tokenizer)
    found: list[tuple[float, int, str]] = [(0.0, 0, "")] * len(rows)
    whole = _keeps_all(model)
    together = [whole and row.start > 0 and _is_begun(row) and row.ids[-1] in ends for row in rows]

    def width(index: int) -> int:
        return max(len(rows[index].ids), rows[index].start + new_tokens)

    def order(index: int) -> tuple[int, ...]:
        return (len(rows[index].ids) - rows[index].start) // 16, len(rows[index].ids)

    chosen = [index for index, each in enumerate(together) if each]
    with inference(model) as device:
        for batch in grouped(len(chosen), lambda i: width(chosen[i]), lambda i: order(chosen[i]), batch_tokens):
            taken = [chosen[i] for i in batch]
            pairs = [(rows[i].ids, rows[i].start) for i in taken]
            each = _Batch(model, device, pairs, new_tokens, ends)
            advance(len(taken))
            for i, nll, tokens, answer in zip(taken, each.nll, each.tokens, each.answers(), strict=True):
                found[i] = nll, tokens, str(tokenizer.decode(answer, skip_special_tokens=True))
            advance(len(taken))
    apart = [index for index, each in enumerate(together) if not each]
    asked = [rows[index] for index in apart]
    nlls, counts = likelihoods(model, [(row.ids, row.start) for row in asked], batch_tokens, advance)
    expected = [len(row.ids) - row.start for row in asked]
    texts = answers(model, tokenizer, [row.prompt for row in asked], expected, new_tokens, batch_tokens, advance)
    for i, nll, tokens, text in zip(apart, nlls, counts, texts, strict=True):
        found[i] = nll, tokens, text
    return [nll for nll, _, _ in found], [tokens for _, tokens, _ in found], [answer for _, _, answer in found]


def _is_begun(row: Asked) -> bool:
    return row.ids[: row.start] == row.prompt


def _keeps_all(model: torch.nn.Module) -> bool:
    """Whether every layer keeps the keys and values of all tokens, and attention takes a mask with gaps."""
    config: Any = model.config
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    window = getattr(config, "sliding_window", None) if not getattr(config, "layer_types", None) else None
    return not others and window is None and config._attn_implementation == "sdpa" and not config.is_encoder_decoder


class _Batch:
    """Rows that are read at once; their greedy answers go on from there.

    Args:
        model: In evaluation mode, without gradients.
        device: Where its first weights are.
        rows: Tokens of each, and how many are the prompt's.
        new_tokens: Where answers end at the latest.
        ends: Tokens that end an answer.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        rows: Sequence[tuple[list[int], int]],
        new_tokens: int,
        ends: Collection[int],
    ) -> None:
        import torch

        self._model, self._device, self._room, self._ends = model, device, new_tokens, ends
        ids, mask, labels = right_padded(rows)
        first = int((labels != IGNORED).any(0).int().argmax())
        self._cache = key_values.empty()
        # Logits before the first completion are never made: with a large vocabulary they are the largest tensor.
        output = model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            use_cache=True,
            past_key_values=self._cache,
            logits_to_keep=ids.shape[1] - first + 1,
        )
        logits = output.logits[:, :-1].float()
        targets = labels[:, first:].to(logits.device)
        scored = targets != IGNORED
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
        )
        self.nll: list[float] = losses.double().sum(1).tolist()
        self.tokens: list[int] = scored.sum(1).tolist()
        likely = logits.argmax(-1)
        wrong = (likely != targets) & scored
        places = wrong.int().argmax(1)
        self._begun = [
            [*row[start : first + place], token] if other else row[start:]
            for (row, start), place, token, other in zip(
                rows,
                places.tolist(),
                likely.gather(1, places[:, None])[:, 0].tolist(),
                wrong.any(1).tolist(),
                strict=True,
            )
        ]
        self._read = [start + len(begun) - 1 for (_, start), begun in zip(rows, self._begun, strict=True)]

    def answers(self) -> list[list[int]]:
        """The answers' tokens, without what ends them."""
        answers = self._begun
        going = [index for index, answer in enumerate(answers) if self._goes_on(answer)]
        if going:
            self._go_on(answers, going)
        return [self._ended(answer) for answer in answers]

    def _go_on(self, answers: list[list[int]], going: list[int]) -> None:
        """Add tokens to the answers that are ``going`` until the last of them ends."""
        import torch

        columns = self._cache.get_seq_length()
        kept = torch.tensor(going, device=self._device)
        key_values.select(self._cache, kept, slice(None))
        place = torch.tensor([[self._read[index]] for index in going], device=self._device)
        # What was read of the expected answer after the first other token is never looked at again.
        mask = torch.arange(columns, device=self._device) < place
        mask = torch.cat([mask, mask.new_ones((len(going), self._room))], dim=1)
        last = [answers[index][-1] for index in going]
        while going:
            columns += 1
            for index, token in zip(going, self._step(last, mask[:, :columns], place), strict=True):
                answers[index].append(token)
            place = place + 1
            still = [row for row, index in enumerate(going) if self._goes_on(answers[index])]
            if len(still) <= FEWER * len(going):
                kept = torch.tensor(still, dtype=torch.long, device=self._device)
                key_values.select(self._cache, kept, slice(None))
                mask, place, going = mask[kept], place[kept], [going[row] for row in still]
            last = [answers[index][-1] for index in going]

    def _step(self, last: list[int], mask: Tensor, place: Tensor) -> list[int]:
        import torch

        output = self._model(
            input_ids=torch.tensor(last, device=self._device)[:, None],
            attention_mask=mask[:, None, None, :],
            position_ids=place,
            past_key_values=self._cache,
            use_cache=True,
        )
        tokens: list[int] = output.logits[:, -1].argmax(-1).tolist()
        return tokens

    def _goes_on(self, answer: list[int]) -> bool:
        return len(answer) < self._room and not any(token in self._ends for token in answer)

    def _ended(self, answer: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(answer) if token in self._ends), len(answer))
        return answer[: min(end, self._room)]
