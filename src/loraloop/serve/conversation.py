"""A conversation as text: images go through OCR, recordings through speech recognition, at their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loraloop.core.workers import Workers
from loraloop.serve import images
from loraloop.serve.errors import ApiError
from loraloop.serve.schema import Audio, Image, Message, Reply, Result, Text

if TYPE_CHECKING:
    from loraloop.protocols import Ocr
    from loraloop.serve.server import Server
    from loraloop.serve.speech import Recogniser

AT_ONCE = 2
"""Requests whose files are read at the same time; others wait."""


@dataclass
class Reader:
    """Turns messages into plain text, off the event loop where files are read."""

    settings: Server
    ocr: Ocr | None = None
    speech: Recogniser | None = None
    _workers: Workers = field(default_factory=lambda: Workers("files", AT_ONCE))

    async def conversation(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The turns in OpenAI's form, with text alone; parts of a message stand on lines of their own.

        Raises:
            ApiError: A file is too large, of another kind, or cannot be read.
        """
        files = sum(not isinstance(part, Text) for turn in messages for part in _parts(turn))
        if files == 0:
            return self._read(messages)
        if files > self.settings.max_files:
            message = f"{files} images and recordings are more than server.max_files={self.settings.max_files}"
            raise ApiError(400, message, param="messages", code="too_many_files")
        return await self._workers.run(self._read, messages)

    def _read(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        turns = []
        for index, turn in enumerate(messages):
            texts = [self._text(part, f"messages[{index}].content[{at}]") for at, part in enumerate(_parts(turn))]
            role = "system" if turn.role == "developer" else turn.role
            said: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
            if isinstance(turn, Reply) and turn.tool_calls:
                said["tool_calls"] = [call.model_dump(exclude={"index"}) for call in turn.tool_calls]
            if isinstance(turn, Result):
                said["tool_call_id"] = turn.tool_call_id
            turns.append(said)
        return turns

    def _text(self, part: Text | Image | Audio, param: str) -> str:
        limit = self.settings.max_file_bytes
        if isinstance(part, Text):
            return part.text
        if isinstance(part, Image):
            if self.ocr is None:
                raise _unsupported(param, "this server reads no images")
            return images.read(part.image_url.url, self.ocr, limit, f"{param}.image_url.url")
        if self.speech is None:
            raise _unsupported(param, "this server hears no recordings (server.speech is not set)")
        data = images.decode(part.input_audio.data, limit, f"{param}.input_audio.data")
        return self.speech.read(data, f"{param}.input_audio.data")


def _parts(turn: Message) -> Sequence[Text | Image | Audio]:
    return [Text(type="text", text=turn.content)] if isinstance(turn.content, str) else turn.content or []


def _unsupported(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", param=param, code="unsupported_content")
