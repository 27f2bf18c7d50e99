"""Bodies of requests, in the form of OpenAI's API reference (chat and completions) and of vLLM's LoRA routes.

What a body may not hold is refused by name. Parameters that this server does not act on are declared with the values
that mean "off" alone (:class:`Neutral`): those are accepted, every other value is an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator


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
Empty = Annotated[dict[str, Any], Field(max_length=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Text(_Strict):
    """Plain text of a message."""

    type: Literal["text"]
    text: Unicode


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

    _text = field_validator("content")(_text_alone)


class Question(_Strict):
    """What the user says."""

    role: Literal["user"]
    content: Content


class Reply(_Strict):
    """What the model said before: text alone."""

    role: Literal["assistant"]
    content: Content

    _text = field_validator("content")(_text_alone)


Message = Annotated[Instruction | Question | Reply, Field(discriminator="role")]


class StreamOptions(_Strict):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Metadata(_Strict):
    """What a request says about itself.

    ``retries``: how often this task was tried before, in decimal digits. ``conversation``: what the request is part of;
    while a new version is tried on a share of conversations, one version answers all of it.
    """

    retries: Annotated[str, Field(pattern=r"^[0-9]{1,3}$")] | None = None
    conversation: Label | None = None


class TextFormat(_Strict):
    """The only format of an answer."""

    type: Literal["text"]


class Neutral(_Strict):
    """Parameters of both APIs that are accepted with the value that changes nothing."""

    n: Literal[1] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: Empty | None = None


class NeutralChat(Neutral):
    """The same for chat alone."""

    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: Nothing | None = None
    function_call: Literal["none", "auto"] | None = None
    response_format: TextFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    moderation: None = None
    web_search_options: None = None
    prompt_cache_key: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: None = None


class NeutralCompletion(Neutral):
    """The same for completions alone."""

    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None


class Sampling(Neutral):
    """What both APIs share."""

    model: Annotated[Unicode, Field(min_length=1, max_length=200)]
    max_tokens: Count | None = None
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


class ChatRequest(Sampling, NeutralChat):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=500)]
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


class CompletionRequest(Sampling, NeutralCompletion):
    """Body of ``POST /v1/completions``."""

    prompt: Unicode | Annotated[list[Unicode], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def text(self) -> str:
        """The one prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class LoadRequest(_Strict):
    """Body of ``POST /v1/load_lora_adapter``; ``lora_path`` is a version (``ocr@7``) or a folder with its manifest."""

    lora_name: Annotated[str, Field(pattern=r"^\w[\w.@-]{0,99}$")]
    lora_path: Annotated[Unicode, Field(min_length=1, max_length=4096)]
    load_inplace: Literal[False] = False


class UnloadRequest(_Strict):
    """Body of ``POST /v1/unload_lora_adapter``."""

    lora_name: Annotated[Unicode, Field(min_length=1, max_length=200)]
    lora_int_id: None = None
