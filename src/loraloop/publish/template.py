"""The chat template that travels with an export: the one with which the adapter was trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from loraloop.core.chat_templates import BUILT_IN, NAMED
from loraloop.records import Manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOOL = "{{ tool | tojson }}"
_DESCRIBED = """{{ tool | tojson | replace('"description": "", ', '') | replace('"description": null, ', '') }}"""
START = "{{ bos_token }}"
FILE = "chat_template.jinja"
"""Beside an adapter, whose base has another template."""


def of_training(manifest: Manifest) -> str | None:
    """The Jinja template of the training where it is not the base's own; ``None`` for that one and a format string.

    Servers give a tool without a description an empty one (llama.cpp) or ``null``, which no training saw: the template
    leaves both out again.
    """
    found = BUILT_IN.get(manifest.template)
    return None if found is None else found.replace(_TOOL, _DESCRIBED)


def is_chat(manifest: Manifest) -> bool:
    """Whether the adapter was trained with a chat template, which clients that send messages need."""
    return manifest.template in NAMED


def give(tokenizer: PreTrainedTokenizerBase, manifest: Manifest) -> None:
    """Let a tokenizer have the template of the training.

    Where the tokenizer puts a start token before every text, as it did in the training, the template writes it:
    programs that render a conversation add none.
    """
    own = travelling(manifest, lambda: tokenizer)
    if own is not None:
        tokenizer.chat_template = own


def travelling(manifest: Manifest, tokenizer: Callable[[], PreTrainedTokenizerBase]) -> str | None:
    """:func:`of_training` as other programs run it, with the start token where the tokenizer puts one.

    Args:
        manifest: Of the adapter.
        tokenizer: Gives that of its base; asked where the template is not the base's own.
    """
    own = of_training(manifest)
    if own is None:
        return None
    base = tokenizer()
    starts = base("").input_ids[:1] == [base.bos_token_id]
    return START + own if starts and START not in own else own
