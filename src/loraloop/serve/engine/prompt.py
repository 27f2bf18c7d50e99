"""A conversation as the prompt that an adapter was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from loraloop.errors import ArtefactError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHAT = "chat"
Renderer = Callable[[str], Callable[[str, str], str]]
"""Makes of a format string what turns instruction and input into a prompt."""


def renderer_of(make: Renderer, template: str, model: str) -> Callable[[str, str], str]:
    """The renderer of a manifest's template.

    Raises:
        ArtefactError: The template holds more than plain placeholders; what it would reach is not its own.
    """
    try:
        return make(template)
    except ValueError as error:
        raise ArtefactError(f"{model}: the prompt template of its manifest is refused: {error}") from error


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


def chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """The conversation in the tokenizer's chat template; without a template, one message a line.

    The template's own start-of-text token is left out where the tokenizer adds one to any text: it would come twice.
    """
    if not tokenizer.chat_template:
        return "".join(f"{message['content']}\n" for message in messages)
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # templates raise what they like, such as for roles that do not alternate
        raise ModelError(f"the model's chat template refuses the conversation: {error}") from error
    adds_start = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return str(text).removeprefix(str(tokenizer.bos_token)) if adds_start else str(text)


def instruction(render: Callable[[str, str], str], template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """The conversation in a format string with an instruction and an input.

    System messages are the instruction and the others the input; without system messages, or where the template has
    no input, everything is the instruction. Turns stand on lines of their own.
    """
    system = "\n".join(message["content"] for message in messages if message["role"] == "system")
    said = "\n".join(message["content"] for message in messages if message["role"] != "system")
    if system and "{input}" in template and "{instruction}" in template:
        return render(system, said)
    everything = "\n".join(text for text in (system, said) if text)
    return render(everything, "") if "{instruction}" in template else render("", everything)
