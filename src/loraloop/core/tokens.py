"""The one rule that turns prompt and completion into token ids: for training, evaluation and serving alike."""

from __future__ import annotations

from collections.abc import Sequence
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

    The ids that TRL 1.16 trains on (``SFTTrainer``, prompt and completion columns of plain text): the end token's text
    is appended unless the completion ends with it, prompt and completion are tokenised together, and the completion
    begins where the tokenised prompt alone and the whole diverge.

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
    texts = [prompt + (completion if completion.endswith(end) else completion + end) for prompt, completion in rows]
    wholes: list[list[int]] = tokenizer(texts)["input_ids"]
    prompts: list[list[int]] = tokenizer([prompt for prompt, _ in rows])["input_ids"]
    return [(whole, _common(prompt, whole)) for prompt, whole in zip(prompts, wholes, strict=True)]


def _common(prompt: list[int], whole: list[int]) -> int:
    """Length of the beginning that both share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
