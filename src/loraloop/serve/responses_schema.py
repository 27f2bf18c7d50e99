"""The body of ``POST /v1/responses``, in the form of OpenAI's API reference, and the chat request behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from loraloop.serve.schema import Label, Unicode

Id = Annotated[Unicode, Field(min_length=1, max_length=200)]


class _Item(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class TextPart(_Item):
    """Text of the user, or of an answer as it was given."""

    type: Literal["input_text", "output_text"]
    text: Unicode
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Any = None


class ImagePart(_Item):
    """An image as a ``data:`` URL."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "high"] | None = None
    file_id: None = None


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Content = Unicode | Annotated[list[Part], Field(max_length=500)]


class MessageItem(_Item):
    """A message; what an answer's has beside its text is taken as it was given."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: str | None = None
    status: Any = None
    phase: Any = None


class CallItem(_Item):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: Id
    name: Unicode
    arguments: Unicode
    id: str | None = None
    status: Any = None
    caller: Any = None
    namespace: None = None
    async_: Any = Field(default=None, validation_alias=AliasChoices("async", "async_"))  # the SDK writes either


class ResultItem(_Item):
    """What a function gave."""

    type: Literal["function_call_output"]
    call_id: Id
    output: Content
    id: str | None = None
    status: Any = None
    caller: Any = None


def _kind(item: Any) -> str:
    return str(item.get("type") or "message") if isinstance(item, dict) else "message"


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(_kind),
]


class FunctionTool(_Item):
    """A function that the model may call; the API's own tools are not offered."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: Literal[False] | None = None


class TextSettings(_Item):
    """The form of the answer's text."""

    format: dict[str, Any] | None = None
    verbosity: Any = None


class StreamOptions(_Item):
    """What a stream holds beside the answer."""

    include_obfuscation: Literal[False] | None = None


class NeutralResponses(_Item):
    """Parameters of responses that are accepted with the value that changes nothing."""

    background: Literal[False] | None = None
    conversation: None = None
    prompt: None = None
    context_management: None = None
    moderation: None = None
    max_tool_calls: None = None
    truncation: Literal["disabled"] | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None


class ResponsesRequest(NeutralResponses):
    """Body of ``POST /v1/responses``. What chat has under the same rule is checked by chat's own."""

    model: Any
    input: Unicode | Annotated[list[Item], Field(min_length=1, max_length=1000)]
    instructions: Unicode | None = None
    previous_response_id: Id | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: Any = None
    max_output_tokens: Any = None
    top_logprobs: Any = None
    temperature: Any = None
    top_p: Any = None
    metadata: dict[str, Any] | None = None
    user: Label | None = None
    safety_identifier: Label | None = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None

    @model_validator(mode="after")
    def _logprobs_included(self) -> ResponsesRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs include=[message.output_text.logprobs]")
        return self

    @property
    def logprobs(self) -> bool:
        """Whether the answer's tokens have their log-probabilities."""
        return "message.output_text.logprobs" in (self.include or ())

    @property
    def said(self) -> list[dict[str, Any]]:
        """The input as messages of chat."""
        return [{"role": "user", "content": self.input}] if isinstance(self.input, str) else list(_turns(self.input))

    def chat(self, past: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The body of the chat request that says the same after ``past``."""
        told = {"role": "developer", "content": self.instructions}
        text = self.text or TextSettings()
        body = {
            "model": self.model,
            "messages": [*([told] if self.instructions else []), *past, *self.said],
            "tools": [_tool(tool) for tool in self.tools] if self.tools else None,
            "tool_choice": _choice(self.tool_choice),
            "response_format": _format(text.format),
            "max_completion_tokens": self.max_output_tokens,
            "reasoning_effort": self.reasoning,
            "verbosity": text.verbosity,
            "logprobs": self.logprobs or None,
            "stream_options": {"include_usage": True} if self.stream else None,
        }
        same = ("stream", "parallel_tool_calls", "top_logprobs", "temperature", "top_p", "metadata", "user")
        more = ("safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_options")
        body |= {name: getattr(self, name) for name in (*same, *more, "prompt_cache_retention")}
        return {name: value for name, value in body.items() if value is not None}


def _turns(items: Sequence[MessageItem | CallItem | ResultItem]) -> Iterator[dict[str, Any]]:
    """The items as messages: calls that follow each other, and the text before them, are one."""
    turn: dict[str, Any] | None = None
    for item in items:
        if isinstance(item, CallItem):
            turn = turn or {"role": "assistant", "content": None}
            called = {"name": item.name, "arguments": item.arguments}
            turn.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": called})
            continue
        if turn is not None:
            yield turn
            turn = None
        if isinstance(item, ResultItem):
            yield {"role": "tool", "tool_call_id": item.call_id, "content": _parts(item.output)}
        elif item.role == "assistant":
            turn = {"role": "assistant", "content": _parts(item.content)}
        else:
            yield {"role": item.role, "content": _parts(item.content)}
    if turn is not None:
        yield turn


def _parts(content: str | list[TextPart | ImagePart]) -> Any:
    if isinstance(content, str):
        return content
    if all(isinstance(part, TextPart) for part in content) and len(content) <= 1:
        return "".join(part.text for part in content if isinstance(part, TextPart))
    return [_part(part) for part in content]


def _part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.image_url, "detail": part.detail or "auto"}}


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude={"type", "defer_loading"}, exclude_none=True)}


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _format(form: dict[str, Any] | None) -> dict[str, Any] | None:
    """Chat puts what a schema's format has beside its type into an object of its own."""
    if form is None or form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}
