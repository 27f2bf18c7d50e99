"""The chat template that travels with an export: the one with which the adapter was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core.chat_templates import BUILT_IN, NAMED
from loraloop.records import Manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "chat_template.jinja"
"""Beside an adapter, whose base has another template."""


def of_training(manifest: Manifest) -> str | None:
    """The Jinja template of the training where it is not the base's own; ``None`` for that one and a format string."""
    return BUILT_IN.get(manifest.template)


def is_chat(manifest: Manifest) -> bool:
    """Whether the adapter was trained with a chat template, which clients that send messages need."""
    return manifest.template in NAMED


def give(tokenizer: PreTrainedTokenizerBase, manifest: Manifest) -> None:
    """Let a tokenizer have the template of the training."""
    own = of_training(manifest)
    if own is not None:
        tokenizer.chat_template = own
