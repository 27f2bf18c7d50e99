"""GRPO on a CPU: the answers to a prompt share one pass over it, where they are drawn and where they are learned."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loraloop.core import key_values
from loraloop.trainer.scoring import entropies

if TYPE_CHECKING:
    from torch import Tensor

ALIKE = 1e-3
"""Advantages up to this are rounding: eight rewards of 0.1 have a mean that is not 0.1."""
FEWER = 0.75
"""Answers that have ended leave the batch when no more than this share goes on."""
AFTER_HEAD = ("logits_scaling", "logit_scale", "final_logit_softcapping")
"""Settings of Granite, Cohere and Gemma 2, by which logits are not what the head gives."""
PASS_TOKENS = 1024
"""Tokens of a training pass, padding included: longer passes are no faster on a CPU, and hold more padding."""


def sharing(base: type[Any]) -> type[Any]:
    """A GRPOTrainer that reads each prompt once, however many answers it has; what is learned differs by rounding.

    TRL 1.16 reads it once for each answer, and on a CPU projects its tokens through the LM head too. What is left out
    and put together leaves the loss as it is where that is a sum over the step's answers, as ``loss_type="dapo"`` is.
    """

    class Sharing(base):  # type: ignore[misc]
        _buffered_inputs: Any

        def _generate_single_turn(
            self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
        ) -> tuple[list[list[int]], None]:
            if not shares(self.model):
                drawn: tuple[list[list[int]], None] = super()._generate_single_turn(prompt_ids, *args, **kwargs)
                return drawn
            with self.accelerator.autocast():
                return draw(
                    self.model, prompt_ids, self.eos_token_ids, self.max_completion_length, self.temperature
                ), None

        def _prepare_inputs(self, generation_batch: Any) -> Any:
            """TRL's, whose passes of a step hold the answers to a prompt together rather than in a drawn order.

            The loss is one sum over the step, so that the order changes nothing but how often a prompt is read.
            """
            before = self._buffered_inputs
            inputs = super()._prepare_inputs(generation_batch)
            if self._buffered_inputs is before or not shares(self.model):
                return inputs
            self._buffered_inputs = together(self._buffered_inputs)
            return self._buffered_inputs[self._step % self.args.steps_per_generation]

        def _get_per_token_logps_and_entropies(
            self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor | None, Tensor | None]:
            if not shares(model) or kwargs.get("compute_aux_loss"):
                found: tuple[Tensor, Tensor | None, Tensor | None] = super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
                )
                return found
            with self.accelerator.autocast():
                logps, spread = score(model, input_ids, attention_mask, logits_to_keep, self.temperature)
            return logps, spread, None

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            """Without the answers whose group was rewarded alike: their advantage is 0, and so is their gradient."""
            teaching = inputs["advantages"].abs() > ALIKE
            teaching[0] |= not teaching.any()  # a loss needs a row
            if self.beta == 0:
                inputs = {name: _only(value, teaching) for name, value in inputs.items()}
            return super()._compute_loss(model, inputs)

    return Sharing


def together(passes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of these passes in as many passes of as many rows, answers to one prompt beside each other.

    A pass is a dictionary of tensors ``[rows, ...]``, ``prompt_ids`` among them, lists of ``rows`` and scalars.
    """
    import torch

    prompts = torch.cat([each["prompt_ids"] for each in passes])
    order = prompts.unique(dim=0, return_inverse=True)[1].argsort(stable=True)
    return [_chosen_rows(passes, rows) for rows in order.chunk(len(passes))]


def _chosen_rows(passes: Sequence[Mapping[str, Any]], rows: Tensor) -> dict[str, Any]:
    """These rows of the passes, counted through all of them; a scalar is the same in each."""
    import torch

    def chosen(parts: list[Any]) -> Any:
        if isinstance(parts[0], list):
            joined = [value for part in parts for value in part]
            return [joined[row] for row in rows.tolist()]
        return torch.cat(parts)[rows] if isinstance(parts[0], torch.Tensor) and parts[0].ndim else parts[0]

    return {name: chosen([each[name] for each in passes]) for name in passes[0]}


def shares(model: Any) -> bool:
    """Whether answers may go on from kept keys and values of their prompt: on a CPU, where every layer keeps all.

    Models that change logits after their head are left to TRL.
    """
    config = model.config.get_text_config()
    windowed = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    return (
        model.device.type == "cpu"
        and not windowed
        and not getattr(config, "sliding_window", None)
        and config._attn_implementation == "sdpa"
        and not model.is_gradient_checkpointing
        and not any(getattr(config, name, None) for name in AFTER_HEAD)
    )


def draw(
    model: Any, prompts: Sequence[Sequence[int]], ends: Collection[int], most: int, temperature: float
) -> list[list[int]]:
    """An answer to each prompt, drawn token by token; equal prompts are read once.

    Args:
        model: A causal model.
        prompts: Their tokens.
        ends: Tokens that end an answer; the answer keeps its own.
        most: Tokens of an answer at most.
        temperature: Of the distribution that is drawn from.
    """
    import torch

    distinct = list(dict.fromkeys(map(tuple, prompts)))
    places = {prompt: place for place, prompt in enumerate(distinct)}
    rows = torch.tensor([places[tuple(prompt)] for prompt in prompts])
    ids, mask = _left_padded(distinct)
    answers: list[list[int]] = [[] for _ in prompts]
    cache, going = key_values.empty(), list(range(len(prompts)))
    with torch.no_grad():
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=_positions(mask), past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        logits, mask = output.logits[rows, -1], mask[rows]
        key_values.select(cache, rows, slice(None))
        while True:
            tokens = (logits.float() / temperature).softmax(-1).multinomial(1)
            for index, token in zip(going, tokens[:, 0].tolist(), strict=True):
                if not (answers[index] and answers[index][-1] in ends):
                    answers[index].append(token)
            still = [row for row, index in enumerate(going) if answers[index][-1] not in ends]
            if not still or len(answers[going[still[0]]]) == most:
                return answers
            if len(still) <= FEWER * len(going):
                kept = torch.tensor(still)
                key_values.select(cache, kept, slice(None))
                tokens, mask, going = tokens[kept], mask[kept], [going[row] for row in still]
            mask = torch.cat([mask, mask.new_ones((len(going), 1))], dim=1)
            place = _positions(mask)[:, -1:]
            logits = model(
                input_ids=tokens, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True
            ).logits[:, -1]


def score(model: Any, ids: Tensor, mask: Tensor, keep: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the answers' tokens and entropies of their distributions, both ``[rows, keep]``.

    Padding has 0. Entropies have no gradient.

    Args:
        model: A causal model, or a PEFT model.
        ids: Prompts, padded on the left, and answers of ``keep`` tokens, padded on the right.
        mask: 1 where ``ids`` is no padding.
        keep: Columns of the answers.
        temperature: Of the distribution that the answers were drawn from.
    """
    import torch

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    width, answered = ids.shape[1] - keep, mask[:, -keep:].sum(1)
    marked = ids[:, :width].masked_fill(mask[:, :width] == 0, -1)
    distinct, places = marked.unique(dim=0, return_inverse=True)
    logps = torch.zeros((len(ids), keep))
    spread = torch.zeros_like(logps)
    for chosen in _passes(mask[:, :width].sum(1), answered, places):
        rows = chosen.nonzero()[:, 0]
        read, owners = places[rows].unique(return_inverse=True)
        end = int(answered[rows].max())
        start = int((distinct[read] < 0).sum(1).min())
        taken = slice(start, width + end)
        hidden = _after_prompts(causal, distinct[read, start:], owners, ids[rows, taken], mask[rows, taken], end)
        scored = mask[rows, width : width + end].bool()
        log_probs = (causal.get_output_embeddings()(hidden[scored]).float() / temperature).log_softmax(-1)
        where = (rows[scored.nonzero()[:, 0]], scored.nonzero()[:, 1])
        logps = logps.index_put(where, log_probs.gather(-1, ids[rows, width : width + end][scored][:, None])[:, 0])
        spread[where] = entropies(log_probs)
    return logps, spread


def _after_prompts(causal: Any, prompts: Tensor, owners: Tensor, ids: Tensor, mask: Tensor, keep: int) -> Tensor:
    """Hidden states that predict the last ``keep`` tokens of each row: the rows go on from their prompts' keys."""
    from transformers import DynamicCache

    cache, shown = DynamicCache(), (prompts >= 0).to(mask.dtype)
    before = prompts.shape[1] - 1
    backbone = causal.base_model
    if before:
        backbone(
            input_ids=prompts[:, :-1].clamp(min=0), attention_mask=shown[:, :-1],
            position_ids=_positions(shown[:, :-1]), past_key_values=cache, use_cache=True,
        )  # fmt: skip
        cache.batch_select_indices(owners)
    output = backbone(
        input_ids=ids[:, before:-1], attention_mask=mask[:, :-1], position_ids=_positions(mask)[:, before:-1],
        past_key_values=cache, use_cache=True,
    )  # fmt: skip
    hidden: Tensor = output.last_hidden_state
    return hidden


def _passes(asked: Tensor, answered: Tensor, places: Tensor) -> Iterator[Tensor]:
    """Rows of one pass after the other, as masks: all answers to a prompt, beside prompts of similar length."""
    groups = [places == place for place in places.unique().tolist()]
    ordered = sorted(groups, key=lambda group: (int(answered[group].max()), int(asked[group].max())))
    taken, count = places < 0, 0
    for group in ordered:
        both = taken | group
        padded = (count + 1) * int(asked[both].max()) + int(both.sum()) * int(answered[both].max())
        if count and padded > PASS_TOKENS:
            yield taken
            both, count = group, 0
        taken, count = both, count + 1
    yield taken


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)


def _only(value: Any, rows: Tensor) -> Any:
    import torch

    return value[rows] if isinstance(value, torch.Tensor) and value.ndim else value
