"""What a causal model makes of encoded rows: log-likelihoods and greedy answers, independent of the batching."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from loraloop.core.tokens import IGNORED
from loraloop.evaluation.encode import grouped

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedTokenizerBase

Advance = Callable[[int], None]


@contextlib.contextmanager
def inference(model: torch.nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients; yields the device, and restores the training mode on leaving."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _unpacked(model):
            yield next(model.parameters()).device
    finally:
        model.train(training)


@contextlib.contextmanager
def _unpacked(model: torch.nn.Module) -> Iterator[None]:
    """Keep bitsandbytes 0.50 from repacking NF4 weights for inference on CPUs with AVX512-BF16.

    It would do so in the first forward without gradients, for good: scales rounded to bfloat16, and no gradient
    through the layer in a later training.
    """
    layers: list[Any] = [layer for layer in model.modules() if getattr(layer, "support_avx512bf16_for_cpu", False)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    try:
        yield
    finally:
        for layer in layers:
            layer.support_avx512bf16_for_cpu = True


def likelihoods(
    model: torch.nn.Module, encoded: Sequence[tuple[list[int], int]], batch_tokens: int, advance: Advance
) -> tuple[list[float], list[int]]:
    """Negative log-likelihood of each row's completion in nats, and the number of its tokens, end token included.

    Batches are right-padded; a first token without anything before it is not predicted and not counted.
    """
    import torch

    nll, tokens = [0.0] * len(encoded), [0] * len(encoded)

    def width(index: int) -> int:
        return len(encoded[index][0])

    with inference(model) as device:
        for batch in grouped(len(encoded), width, lambda i: (width(i),), batch_tokens):
            ids, mask, labels = right_padded([encoded[i] for i in batch])
            # Logits before the first completion are never made: with a large vocabulary they are the largest tensor.
            kept = ids.shape[1] - max(0, int((labels != IGNORED).any(0).int().argmax()) - 1)
            output = model(
                input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, logits_to_keep=kept
            )
            logits = output.logits[:, -kept:-1].float().transpose(1, 2)
            targets = labels[:, ids.shape[1] - kept + 1 :].to(logits.device)
            losses = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
            for i, total, count in zip(batch, losses.double().sum(1), (targets != IGNORED).sum(1), strict=True):
                nll[i], tokens[i] = float(total), int(count)
            advance(len(batch))
    return nll, tokens


def right_padded(rows: Sequence[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, mask and labels of rows, ``[rows, longest]``; only completions have labels."""
    import torch

    ids = torch.zeros((len(rows), max(len(row) for row, _ in rows)), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for r, (row, prompt) in enumerate(rows):
        ids[r, : len(row)] = torch.tensor(row)
        mask[r, : len(row)] = 1
        labels[r, max(1, prompt) : len(row)] = torch.tensor(row[max(1, prompt) :])
    return ids, mask, labels


def end_tokens(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the tokenizer's, and those of the model's own generation config."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return sorted({tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None})


def _greedy(tokenizer: PreTrainedTokenizerBase, model: torch.nn.Module, new_tokens: int) -> GenerationConfig:
    from transformers import GenerationConfig

    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    # Values set here win over the model's own generation config, which may sample or penalise repetition.
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        max_new_tokens=new_tokens,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=pad,
        use_cache=True,
    )


def answers(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    expected_tokens: Sequence[int],
    new_tokens: int,
    batch_tokens: int,
    advance: Advance,
) -> list[str]:
    """Greedy answers to encoded ``prompts``, in their order, each up to its end token or ``new_tokens``.

    Batches are left-padded. A batch runs until its slowest row, so rows are grouped by ``expected_tokens``, the
    lengths of the expected answers; they decide nothing else.
    """
    import torch

    greedy = _greedy(tokenizer, model, new_tokens)
    found = [""] * len(prompts)

    def width(index: int) -> int:
        return len(prompts[index]) + new_tokens

    def order(index: int) -> tuple[int, ...]:
        return expected_tokens[index] // 16, len(prompts[index])

    with inference(model) as device:
        for batch in grouped(len(prompts), width, order, batch_tokens):
            longest = max(len(prompts[i]) for i in batch)
            gaps = [longest - len(prompts[i]) for i in batch]
            ids = torch.tensor([[greedy.pad_token_id] * gap + prompts[i] for gap, i in zip(gaps, batch, strict=True)])
            mask = torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps])
            output = model.generate(  # type: ignore[operator]
                input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=greedy
            )
            for i, new in zip(batch, output[:, longest:].tolist(), strict=True):
                end = next((n for n, token in enumerate(new) if token in greedy.eos_token_id), len(new))
                found[i] = str(tokenizer.decode(new[:end], skip_special_tokens=True))
            advance(len(batch))
    return found
