"""A conversation to learn from: messages, tool calls, and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

Speaker = Literal["system", "user", "assistant", "tool"]
SPEAKERS: tuple[Speaker, ...] = get_args(Speaker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an example came from; ``None`` means that the fact does not apply."""

    source: str
    seed: int | None = None
    index: int | None = None
    image_path: str | None = None
    image_sha256: str | None = None
    ocr_confidence: float | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that an assistant asks for.

    Attributes:
        arguments: By name, as JSON values.
        id: What the tool's answer names it by; empty where nothing does.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        parts: Texts that stand on lines of their own. A question of two parts is an instruction and an input.
        tool_calls: What an assistant calls, in order.
        tool_call_id: The call that a tool answers; empty where it answers the calls in their order.
        name: Of the tool that answers.
        learned: Whether the loss falls on the turn, if it is the assistant's.
    """

    role: Speaker
    parts: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    learned: bool = True

    @property
    def text(self) -> str:
        """The parts that say something, on lines of their own."""
        return "\n".join(part for part in self.parts if part)

    @property
    def is_target(self) -> bool:
        """Whether a model learns to say it."""
        return self.role == "assistant" and self.learned


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A conversation to learn from.

    Attributes:
        messages: In order; the last one is an assistant's.
        tools: JSON schemas of the tools that are offered, in OpenAI's form (``type``, ``function``).
        raw: Whether the messages' texts follow each other as they are, without a template: what was completed as text.
        rejected: A worse turn in the place of the last one, for preference training.
        label: Whether a person found the last turn good, where one said so.
        task: Slice under which the example is scored, such as ``count``.
        origin: Examples with the same non-empty origin (one image, one session task) stay on one side of the split.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    raw: bool = False
    rejected: Message | None = None
    label: bool | None = None
    task: str = ""
    origin: str = ""
    provenance: Provenance

    @classmethod
    def one_turn(
        cls,
        *,
        input: str,
        output: str,
        instruction: str = "",
        rejected: str | None = None,
        task: str = "",
        origin: str = "",
        provenance: Provenance,
    ) -> Example:
        """One question and its answer.

        Args:
            input: What is asked about, or the whole question.
            output: The answer.
            instruction: What is asked of the input.
            rejected: A worse answer.
            task: As the attribute.
            origin: As the attribute.
            provenance: As the attribute.
        """
        return cls(
            messages=(
                Message("user", (instruction, input) if instruction else (input,)),
                Message("assistant", (output,)),
            ),
            rejected=None if rejected is None else Message("assistant", (rejected,)),
            task=task,
            origin=origin,
            provenance=provenance,
        )

    @property
    def is_one_turn(self) -> bool:
        """Whether :meth:`one_turn` can have made it."""
        return (
            [message.role for message in self.messages] == ["user", "assistant"]
            and len(self.messages[0].parts) <= 2
            and not (self.tools or self.raw or self.label is not None)
            and not any(message.tool_calls for message in (*self.messages, *filter(None, [self.rejected])))
        )

    def until(self, place: int) -> Example:
        """The conversation up to the turn at ``place``."""
        if place == len(self.messages) - 1:
            return self
        return replace(self, messages=self.messages[: place + 1], rejected=None, label=None)

    def kept_together(self) -> Example:
        """The same with an origin, so that its parts stay on one side of a split."""
        if self.origin:
            return self
        said = repr((self.messages, self.tools)).encode("utf-8", "surrogatepass")
        return replace(self, origin=hashlib.sha256(said).hexdigest())

    @property
    def past(self) -> tuple[Message, ...]:
        """What was said before the last turn."""
        return self.messages[:-1]

    @property
    def instruction(self) -> str:
        """The first part of a question of two parts, or the system's words; empty without either."""
        return fields(self.past)[0]

    @property
    def input(self) -> str:
        """What was said before the last turn, without :attr:`instruction`."""
        return fields(self.past)[1]

    @property
    def output(self) -> str:
        """The words of the last turn."""
        return self.messages[-1].text


def fields(messages: tuple[Message, ...]) -> tuple[str, str]:
    """A conversation as instruction and input, each turn on lines of its own.

    The instruction is the first of the two parts of a lone question, or what the system says where somebody else speaks
    too.
    """
    if len(messages) == 1 and len(messages[0].parts) == 2:
        return messages[0].parts[0], messages[0].parts[1]
    system = "\n".join(message.text for message in messages if message.role == "system")
    others = "\n".join(message.text for message in messages if message.role != "system")
    return (system, others) if others else ("", system)
