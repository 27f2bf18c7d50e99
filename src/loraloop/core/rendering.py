"""Conversations as rows: what a model is asked, what it learns to say, and where in the text that stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loraloop.core import prompts
from loraloop.core.chat_templates import CHAT, NAMED
from loraloop.errors import ConfigError, ModelError
from loraloop.records import Example, Message, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_TURNS = 1000
"""Each learned turn is rendered with all that came before it, which takes the square of the turns."""


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders examples by one template.

    Attributes:
        template: A format string or one of :data:`loraloop.core.chat_templates.NAMED`.
        tokenizer: Of the base; a format string needs none.
    """

    template: str
    tokenizer: PreTrainedTokenizerBase | None

    def check(self) -> None:
        """Check that there is what the template needs.

        Raises:
            ConfigError: There is no tokenizer, or it has no chat template.
        """
        if self.template not in NAMED:
            return
        if self.tokenizer is None:
            raise ConfigError(
                f"dataset.template={self.template} needs a model's tokenizer and this stage has none: write "
                "dataset.template='{instruction}\\n{input}\\n> '"
            )
        try:
            prompts.chat(self.template, self.tokenizer, [Message("user", ("a",))], ask=True)
        except ModelError as error:
            raise ConfigError(f"dataset.template={self.template}: {error}") from error

    def rows(self, example: Example) -> list[Row]:
        """The rows of an example: one, in which every learned turn stands.

        Where a turn is rendered otherwise once more turns follow, or without an end token, as by every format string,
        each learned turn has a row of its own, with what came before it as a server would render it; its example ends
        there.

        Raises:
            ModelError: The template refuses the conversation, or does not show its tools.
            ValueError: It does not show its calls, or nothing is learned; the message says why.
        """
        learned = [place for place, message in enumerate(example.messages) if message.is_target]
        if not learned:
            raise ValueError("no turn of an assistant is learned")
        if len(example.messages) > MOST_TURNS:
            raise ValueError(f"{len(example.messages)} turns are more than {MOST_TURNS}: split the conversation")
        if example.raw:
            return [self._raw(example)]
        shown = example.messages[: learned[0]] if self.template in NAMED else example.messages
        prompts.require_tools(self.template, self.tokenizer, shown, example.tools)
        if self.template in NAMED:
            self._require_calls(example)
            spans = self._spans(example, learned)
            return [self._row(example, learned[-1], spans)] if spans is not None else self._apart(example, learned)
        return self._apart(example, learned)

    def _require_calls(self, example: Example) -> None:
        """Check that the template shows every call, learned or not: names, and names and values of arguments.

        Raises:
            ValueError: It does not; says which templates do.
        """
        said = example.messages
        called = [place for place, message in enumerate(said) if message.tool_calls]
        # A template may forget calls once more turns follow: then each is sought where it is the last turn.
        shown = self._shows(example, said, called) or all(
            self._shows(example, said[: place + 1], [place]) for place in called
        )
        if shown and example.rejected is not None:
            shown = self._shows(example, (*example.past, example.rejected), [len(said) - 1])
        if not shown:
            raise ValueError(
                f"dataset.template={self.template} shows no calls of tools, or not their arguments: "
                f"{prompts.WITH_TOOLS}"
            )

    def _shows(self, example: Example, messages: Sequence[Message], places: Sequence[int]) -> bool:
        """Whether the calls of the turns at ``places`` are rendered, sought by names that no conversation holds."""
        marked, marks = list(messages), list[str]()
        for place in places:
            marked[place], found = _marked(messages[place], place)
            marks += found
        if not marks:
            return True
        rendered = self._whole(example, marked)
        return all(mark in rendered for mark in marks)

    def _apart(self, example: Example, learned: Sequence[int]) -> list[Row]:
        whole = example.kept_together() if len(learned) > 1 else example
        return [self._row(whole, place) for place in learned]

    def _raw(self, example: Example) -> Row:
        worse = None if example.rejected is None else example.rejected.text
        return Row("".join(message.text for message in example.past), example.output, example, worse)

    def _row(self, example: Example, place: int, spans: tuple[tuple[int, int], ...] = ()) -> Row:
        prompt = self._ask(example, place)
        rejected = None
        if example.rejected is not None and place == len(example.messages) - 1:
            rejected = self._answer(example, place, example.rejected, prompt)
        answer = self._answer(example, place, example.messages[place], prompt)
        return Row(prompt, answer, example.until(place), rejected, spans, self.template)

    def _ask(self, example: Example, place: int) -> str:
        """The prompt that the turn at ``place`` answers."""
        return prompts.ask(self.template, self.tokenizer, example.messages[:place], example.tools)

    def _whole(self, example: Example, messages: Sequence[Message]) -> str:
        return prompts.chat(self.template, self.tokenizer, messages, example.tools, ask=False)

    def _answer(self, example: Example, place: int, message: Message, prompt: str) -> str:
        """What the model is to say after ``prompt``, without its end token."""
        if self.template not in NAMED:
            return message.text
        rendered = self._whole(example, (*example.messages[:place], message))
        if not rendered.startswith(prompt):
            if message.tool_calls:
                raise ValueError(f"dataset.template={self.template} renders a call otherwise than it asks for it")
            return message.text
        said = self._ended(rendered[len(prompt) :])[0]
        # Templates trim what they are given; the text itself is what answers are compared with.
        return message.text if self.template == CHAT and said.strip() == message.text.strip() else said

    def _spans(self, example: Example, learned: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
        """Where the learned turns before the last stand in its prompt.

        ``None`` where they are rendered otherwise there, or without the tokenizer's end token: a model that learns them
        so would not learn to stop.
        """
        whole = self._ask(example, learned[-1])
        spans = []
        for place in learned[:-1]:
            asked, said = self._ask(example, place), self._whole(example, example.messages[: place + 1])
            if not (said.startswith(asked) and whole.startswith(said)):
                return None
            text, end = self._ended(said[len(asked) :])
            if not end or end != self._end:
                return None
            spans.append((len(asked), len(asked) + len(text) + len(end)))
        return tuple(spans)

    def _ended(self, said: str) -> tuple[str, str]:
        """A rendered turn without what stands after its end token, and that token if it has one."""
        end = self._end
        text, found, _ = said.rpartition(end) if end else ("", "", said)
        if found:
            return text, end
        said = said.rstrip("\n")
        special = (str(token) for token in getattr(self.tokenizer, "all_special_tokens", ()))
        end = max((token for token in special if said.endswith(token)), key=len, default="")
        return said.removesuffix(end), end

    @property
    def _end(self) -> str:
        """The text of the tokenizer's end token; empty without one."""
        return str(getattr(self.tokenizer, "eos_token", None) or "")


def _marked(message: Message, place: int) -> tuple[Message, list[str]]:
    """A turn whose calls have made-up names and arguments, and these."""
    calls, marks = [], []
    for number, call in enumerate(message.tool_calls):
        name, key, value = (f"loraloop_{kind}_{place}_{number}_" for kind in ("call", "key", "value"))
        calls.append(replace(call, name=name, arguments={key: value} if call.arguments else {}))
        marks += [name, key, value] if call.arguments else [name]
    return replace(message, tool_calls=tuple(calls)), marks
