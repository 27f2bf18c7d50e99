"""Bodies of requests, in the form of OpenAI's API reference (chat and completions) and of vLLM's LoRA routes.

What a body may not hold is refused by name. Parameters that this server does not act on are declared with the values
that mean "off" alone (:class:`NeutralChat`): those are accepted, every other value is an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from loraloop.core.messages import arguments
from loraloop.records import Grammar
from loraloop.serve import forms


def _whole(text: str) -> str:
    try:
        text.encode("utf8")
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate), which is no Unicode text") from None
    return text


Unicode = Annotated[str, AfterValidator(_whole)]
Label = Annotated[Unicode, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Stop = Annotated[Unicode, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Nothing = Annotated[list[Any], Field(max_length=0)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]]
Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
CHOICES = 128
"""Most choices of one request: OpenAI's bound of ``n``; prompts of a list count too."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Text(_Strict):
    """Plain text of a message."""

    type: Literal["text"]
    text: Unicode
    cache_control: Any = None


class ImageUrl(_Strict):
    """An image as a ``data:`` URL in base64; it is read in full, so ``low`` detail is not offered."""

    url: str
    detail: Literal["auto", "high"] = "auto"


class Image(_Strict):
    """An image; OCR turns it into text."""

    type: Literal["image_url"]
    image_url: ImageUrl


class AudioData(_Strict):
    """A recording in base64."""

    data: str
    format: Literal["wav"]


class Audio(_Strict):
    """A recording; speech recognition turns it into text."""

    type: Literal["input_audio"]
    input_audio: AudioData


Part = Annotated[Text | Image | Audio, Field(discriminator="type")]
Content = Unicode | Annotated[list[Part], Field(min_length=1, max_length=500)]


def _text_alone(content: Any) -> Any:
    if any(not isinstance(part, Text) for part in content if not isinstance(part, str)):
        raise ValueError("images and recordings stand in messages of the user only")
    return content


class Instruction(_Strict):
    """A message of the system or developer to the model: text alone."""

    role: Literal["system", "developer"]
    content: Content
    name: Label | None = None

    _text = field_validator("content")(_text_alone)


class Question(_Strict):
    """What the user says."""

    role: Literal["user"]
    content: Content
    name: Label | None = None


class FunctionCall(_Strict):
    """What was called, and with which arguments."""

    name: Annotated[Unicode, Field(min_length=1, max_length=64)]
    arguments: Unicode
    parsed_arguments: Any = Field(default=None, exclude=True)

    @field_validator("arguments")
    @classmethod
    def _json_object(cls, value: str) -> str:
        arguments(value, "the function")
        return value


class Call(_Strict):
    """A tool call that the model made before."""

    id: Annotated[Unicode, Field(min_length=1, max_length=200)]
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class Reply(_Strict):
    """What the model said before: text, tool calls, or both.

    The other fields are those that clients send back of an answer as they had it; nothing is done with them.
    """

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: Annotated[list[Call], Field(max_length=100)] | None = None
    name: Label | None = None
    refusal: None = None
    annotations: Nothing | None = None
    audio: None = None
    function_call: None = None
    parsed: Any = None

    @field_validator("content")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return value if value is None else _text_alone(value)

    @model_validator(mode="after")
    def _says_something(self) -> Reply:
        if self.content is None and not self.tool_calls:
            raise ValueError("an assistant's message needs content or tool_calls")
        return self


class Result(_Strict):
    """What a tool answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Annotated[Unicode, Field(min_length=1, max_length=200)]
    name: Label | None = None

    _text = field_validator("content")(_text_alone)


Message = Annotated[Instruction | Question | Reply | Result, Field(discriminator="role")]


class Function(_Strict):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: Unicode | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, exclude=True)


class Tool(_Strict):
    """A tool that is offered."""

    type: Literal["function"]
    function: Function


class StreamOptions(_Strict):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Metadata(_Strict):
    """What a request says about itself: up to 16 pairs of texts, of which this server reads two.

    ``retries``: how often this task was tried before, in decimal digits. ``conversation``: what the request is part of;
    while a new version is tried on a share of conversations, one version answers all of it.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[Unicode, Field(max_length=512)]]

    retries: Annotated[str, Field(pattern=r"^[0-9]{1,3}$")] | None = None
    conversation: Label | None = None

    @model_validator(mode="after")
    def _sixteen(self) -> Metadata:
        if len(self.model_fields_set) > 16:
            raise ValueError(f"metadata holds at most 16 pairs, not {len(self.model_fields_set)}")
        return self


class NeutralChat(_Strict):
    """Parameters of chat that are accepted with the value that changes nothing."""

    functions: Nothing | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    moderation: None = None
    web_search_options: None = None


class Ignored(BaseModel):
    """Parameters that do not change what is answered: any value is accepted, and a header says that it is ignored."""

    reasoning_effort: Any = None
    verbosity: Any = None
    service_tier: Any = None
    store: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of those that were sent with a value."""
        return tuple(name for name in Ignored.model_fields if getattr(self, name) is not None)


class NeutralCompletion(_Strict):
    """The same for completions."""

    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None


class Sampling(_Strict):
    """What both APIs share."""

    model: Annotated[Unicode, Field(min_length=1, max_length=200)]
    n: Annotated[int, Field(ge=1, le=CHOICES)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[Bias, Field(max_length=1024)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None
    user: Label | None = None
    safety_identifier: Label | None = None

    @field_validator("stream_options")
    @classmethod
    def _only_in_a_stream(cls, value: StreamOptions | None, info: Any) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise ValueError("needs stream=true")
        return value

    @property
    def choices(self) -> int:
        """Choices of each prompt."""
        return self.n or 1

    @property
    def bias(self) -> tuple[tuple[int, float], ...]:
        """What is added to the logits of single tokens."""
        return tuple((int(token), added) for token, added in (self.logit_bias or {}).items())

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def retries(self) -> int:
        """How often the same task was tried before."""
        return int((self.metadata and self.metadata.retries) or 0)

    @property
    def conversation(self) -> str | None:
        """What the request is part of."""
        return self.metadata.conversation if self.metadata else None

    @property
    def client(self) -> str | None:
        """Who asks, by one of the API's two names for it."""
        return self.user or self.safety_identifier

    @property
    def counted(self) -> bool:
        """Whether a stream ends with the tokens that were used."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Sampling, NeutralChat, Ignored):
    """Body of ``POST /v1/chat/completions``."""

    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: forms.ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: forms.ResponseFormat | None = None

    messages: Annotated[list[Message], Field(min_length=1, max_length=500)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit: send one of them")
        return self

    @field_validator("tools")
    @classmethod
    def _names_once(cls, value: list[Tool] | None) -> list[Tool] | None:
        forms.require_names_once([tool.function.name for tool in value or ()])
        return value

    @field_validator("tool_choice")
    @classmethod
    def _offered_tool(cls, value: Any, info: Any) -> Any:
        if "tools" in info.data:  # else they are wrong themselves
            forms.require_choice(value, [tool.function.name for tool in info.data["tools"] or ()])
        return value

    @field_validator("messages")
    @classmethod
    def _results_of_calls(cls, value: list[Any]) -> list[Any]:
        asked: set[str] = set()
        for place, message in enumerate(value):
            if isinstance(message, Reply):
                asked |= {call.id for call in message.tool_calls or ()}
            elif isinstance(message, Result) and message.tool_call_id not in asked:
                raise ValueError(f"messages[{place}].tool_call_id={message.tool_call_id} answers no earlier tool call")
        return value

    @property
    def grammar(self) -> Grammar | None:
        """What the answer is held to."""
        functions = [] if self.tool_choice == "none" else [tool.function for tool in self.tools or ()]
        tools = [(each.name, each.parameters) for each in functions]
        return forms.grammar(
            self.response_format,
            self.tool_choice,
            tools,
            parallel=self.parallel_tool_calls is not False,
            strict=[each.name for each in functions if each.strict],
        )

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that the model may call, as it is told of them."""
        if self.tool_choice == "none":
            return []
        return [tool.model_dump(exclude_none=True) for tool in self.tools or ()]


class CompletionRequest(Sampling, NeutralCompletion):
    """Body of ``POST /v1/completions``."""

    prompt: (
        Unicode
        | Annotated[list[Unicode], Field(min_length=1, max_length=CHOICES)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=CHOICES)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _agree(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens=0 needs echo=true: there would be nothing to answer")
        if len(self.prompts) * self.choices > CHOICES:
            asked = len(self.prompts) * self.choices
            raise ValueError(f"n times the prompts is {asked}, and one request has at most {CHOICES} choices")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt: a text, or the tokens that the client chose."""
        one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        prompts: Any = [self.prompt] if one else self.prompt
        return list(prompts)


class LoadRequest(_Strict):
    """Body of ``POST /v1/load_lora_adapter``; ``lora_path`` is a version (``ocr@7``) or a folder with its manifest."""

    lora_name: Annotated[str, Field(pattern=r"^\w[\w.@-]{0,99}$")]
    lora_path: Annotated[Unicode, Field(min_length=1, max_length=4096)]
    load_inplace: Literal[False] = False


class UnloadRequest(_Strict):
    """Body of ``POST /v1/unload_lora_adapter``."""

    lora_name: Annotated[Unicode, Field(min_length=1, max_length=200)]
    lora_int_id: None = None
