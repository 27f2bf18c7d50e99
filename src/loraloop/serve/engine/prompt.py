"""What a server asks of templates and tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.core import prompts
from loraloop.core.chat_templates import CHAT, NAMED
from loraloop.core.prompt_format import placeholders
from loraloop.errors import ArtefactError, ModelError
from loraloop.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def longest_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Most characters that one token stands for, or ``None`` where a token may stand for any number of them.

    A byte-level vocabulary writes a byte as a character, so that no token is longer than its name; a normalizer, an
    unknown token, or an added token that takes the spaces beside it would be.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is not None or type(backend.model).__name__ != "BPE":
        return None
    if "ByteLevel" not in f"{backend.pre_tokenizer}" or any(
        token.lstrip or token.rstrip for token in tokenizer.added_tokens_decoder.values()
    ):
        return None
    return max(map(len, tokenizer.get_vocab()))


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], known: int) -> str:
    """The text of tokens that a client chose, of a vocabulary of ``known`` tokens.

    Raises:
        ModelError: One of them is none of the vocabulary.
    """
    for token in ids:
        if not 0 <= token < known:
            raise ModelError(f"{token} is no token: the vocabulary has 0 to {known - 1}")
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def checked(template: str, model: str) -> str:
    """The template of a manifest.

    Raises:
        ArtefactError: It holds more than plain placeholders; what it would reach is not its own.
    """
    if template not in NAMED:
        try:
            placeholders(template)
        except ValueError as error:
            raise ArtefactError(f"{model}: the prompt template of its manifest is refused: {error}") from error
    return template


def of_base(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: prompts.Tools = ()) -> str:
    """The conversation in the tokenizer's chat template; without a template, one message a line.

    Raises:
        ModelError: The template refuses the conversation, or does not show the tools.
    """
    if not tokenizer.chat_template and not tools:
        return "".join(f"{message.text}\n" for message in messages)
    try:
        prompts.require_tools(CHAT, tokenizer, messages, tools)
    except ModelError as error:
        raise ModelError(
            "base has a chat template that shows no tools, so it can be offered none: ask a version that was trained "
            "with dataset=chatml, or a base whose template shows them"
        ) from error
    return prompts.ask(CHAT, tokenizer, messages, tools)
