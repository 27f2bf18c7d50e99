"""The one rule that turns prompt and completion into token ids: for training, evaluation and serving alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from loraloop.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that the loss does not count (PyTorch's ``ignore_index``)."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of a prompt; the tokenizer adds its own start token, and nothing is cut."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    return ids


def encode_rows(tokenizer: PreTrainedTokenizerBase, rows: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
    """Token ids of each prompt and completion with the end token, and how many of them belong to the prompt.

    A row begins with the tokens of its prompt alone, because that is what the model is asked with. Where prompt and
    completion tokenised together begin so, these are the ids, as TRL 1.16 trains on them (``SFTTrainer``, prompt and
    completion columns of plain text); the end token's text is appended unless the completion ends with it. Where a
    token would reach over the boundary, such as a blank at the prompt's end that merges with the answer's first word,
    the completion is tokenised apart. A tokenizer that cannot do that without changing the text, as those that put a
    blank before every text, keeps TRL's ids, and the completion begins where both diverge.

    Args:
        tokenizer: With an end token.
        rows: Pairs of prompt and completion.

    Raises:
        DataError: The tokenizer has no end token.
    """
    end = tokenizer.eos_token
    if end is None:
        raise DataError(f"{tokenizer.name_or_path or 'the tokenizer'} has no end token: set its eos_token")
    if not rows:
        return []
    ended = [completion if completion.endswith(end) else completion + end for _, completion in rows]
    wholes: list[list[int]] = tokenizer([prompt + text for (prompt, _), text in zip(rows, ended, strict=True)])[
        "input_ids"
    ]
    prompts: list[list[int]] = tokenizer([prompt for prompt, _ in rows])["input_ids"]
    return [_joined(tokenizer, *each) for each in zip(prompts, ended, wholes, strict=True)]


def _joined(
    tokenizer: PreTrainedTokenizerBase, prompt: list[int], completion: str, whole: list[int]
) -> tuple[list[int], int]:
    common = _common(prompt, whole)
    if common == len(prompt):
        return whole, common
    apart: list[int] = [*prompt, *tokenizer(completion, add_special_tokens=False)["input_ids"]]
    texts = tokenizer.batch_decode([whole, apart], clean_up_tokenization_spaces=False)
    return (apart, len(prompt)) if texts[0] == texts[1] else (whole, common)


def within(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Which tokens of ``text`` begin within each span of its characters: from and to, in the spans' order.

    A token that begins before a span and ends in it belongs to what stands before: it is known when the span is due.

    Args:
        tokenizer: A fast one, which tells where its tokens stand.
        text: With ``spans`` in it.
        spans: From and to, ascending, without overlaps.

    Raises:
        DataError: The tokenizer does not tell where its tokens stand.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"the tokenizer of {tokenizer.name_or_path!r} does not tell where its tokens stand, so only the last turn "
            "of a conversation can be learned: write trainer.loss_on=last"
        )
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    # A start token that the tokenizer adds covers no character.
    begins = [begin if end > begin else -1 for begin, end in offsets]
    for start, stop in spans:
        inside = [place for place, begin in enumerate(begins) if start <= begin < stop]
        if inside:
            yield inside[0], inside[-1] + 1


def _common(prompt: list[int], whole: list[int]) -> int:
    """Length of the beginning that both share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
