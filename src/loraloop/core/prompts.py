"""A conversation as the text that a model reads: the one rule of training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loraloop.core.chat_templates import BUILT_IN, CHAT, NAMED
from loraloop.core.messages import for_template
from loraloop.core.prompt_format import format_renderer
from loraloop.errors import ModelError
from loraloop.records import Message
from loraloop.records.conversation import fields

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tools = Sequence[Mapping[str, Any]]
WITH_TOOLS = "dataset.template=chatml does, and so do plain and llama2"


def ask(
    template: str, tokenizer: PreTrainedTokenizerBase | None, messages: Sequence[Message], tools: Tools = ()
) -> str:
    """The prompt that a model answers with its next turn.

    Args:
        template: One of :data:`NAMED` or a format string.
        tokenizer: Of the base; a format string needs none.
        messages: So far.
        tools: That are offered; a format string shows none.

    Raises:
        ModelError: The chat template refuses the conversation, or there is none.
        ValueError: The format string is none.
    """
    if template in NAMED:
        return chat(template, tokenizer, messages, tools, ask=True)
    return in_format(template, messages)


def require_tools(
    template: str, tokenizer: PreTrainedTokenizerBase | None, messages: Sequence[Message], tools: Tools
) -> None:
    """Check that a template shows the tools and calls of a conversation.

    Raises:
        ModelError: It does not; says which templates do.
    """
    if template not in NAMED:
        if tools or any(message.tool_calls for message in messages):
            raise ModelError(f"a format string shows neither tools nor calls: {WITH_TOOLS}")
    elif tools and ask(template, tokenizer, messages, tools) == ask(template, tokenizer, messages):
        raise ModelError(f"dataset.template={template} shows no tools: {WITH_TOOLS}")


def in_format(template: str, messages: Sequence[Message]) -> str:
    """The conversation in a format string with an instruction and an input.

    Without an instruction (:func:`loraloop.records.conversation.fields`), or where the template has no place for one of
    them, everything takes the one place that there is.

    Raises:
        ValueError: It is no format string.
    """
    render = format_renderer(template)
    instruction, said = fields(tuple(messages))
    if instruction and "{input}" in template and "{instruction}" in template:
        return render(instruction, said)
    everything = "\n".join(text for text in (instruction, said) if text)
    return render(everything, "") if "{instruction}" in template else render("", everything)


def chat(
    template: str,
    tokenizer: PreTrainedTokenizerBase | None,
    messages: Sequence[Message],
    tools: Tools = (),
    *,
    ask: bool,
) -> str:
    """The conversation in a chat template.

    The template's own start-of-text token is left out where the tokenizer adds one to any text: it would come twice.

    Args:
        template: One of :data:`NAMED`.
        tokenizer: Of the base.
        messages: To render.
        tools: That are offered.
        ask: Whether the assistant's next turn begins at the end.

    Raises:
        ModelError: There is no template, or it refuses the conversation.
    """
    if tokenizer is None:
        raise ModelError(f"the template {template!r} needs a model's tokenizer, and there is none")
    if template == CHAT and not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template: write dataset.template="
            f"{' or '.join(BUILT_IN)}, or '{{instruction}}\\n{{input}}\\n> ', or choose a model that has one"
        )
    try:
        text = str(
            tokenizer.apply_chat_template(
                [for_template(message) for message in messages],
                tools=[dict(tool) for tool in tools] or None,  # templates ask whether there are any
                chat_template=BUILT_IN.get(template),
                tokenize=False,
                add_generation_prompt=ask,
            )
        )
    except Exception as error:  # templates raise what they like, such as for roles that do not alternate
        raise ModelError(f"the model's chat template refuses the conversation: {error}") from error
    adds_start = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(str(tokenizer.bos_token)) if adds_start else text
