"""The judge behind any server that speaks OpenAI's chat API, loraloop's own included."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from loraloop.core.hashing import sha256_json
from loraloop.core.part import part
from loraloop.core.passwords import mask
from loraloop.errors import ConfigError
from loraloop.judge import prompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from loraloop.judge.asking import Asking


@part
class OpenAIJudge:
    """A model that rates answers by a rubric, at temperature 0.

    Attributes:
        url: The server, with ``/v1``.
        model: Its name there.
        key_variable: Environment variable that holds the server's key, if it asks for one.
        rubric: What makes an answer good, in words; also what each score stands for.
        seconds: How long one call may take, from the connection to the last byte.
        retries: How often a call is repeated that gave no answer, or none of those asked for.
        max_calls: Most calls of one run, retries included.
        max_tokens: Of one answer of the judge.
        cache: Folder that keeps what it said; ``None`` asks each time.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] = "http://127.0.0.1:8000/v1"
    model: Annotated[str, Field(min_length=1, max_length=256)]
    key_variable: str = "JUDGE_API_KEY"
    rubric: Annotated[str, Field(min_length=1)]
    seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    max_calls: Annotated[int, Field(ge=1)] = 500
    max_tokens: Annotated[int, Field(ge=16)] = 300
    cache: Path | None = None

    @property
    def by(self) -> str:
        """The model."""
        return self.model

    @property
    def rule(self) -> str:
        """Eight digits of the hash of model, rubric and question."""
        return sha256_json([self.model, self.rubric, prompt.RULES, prompt.ONE, prompt.TWO])[:8]

    def client(self) -> AsyncOpenAI:
        """The official client, which repeats nothing by itself: each call counts.

        It keeps no connection, since a connection belongs to an event loop and each call has one of its own.
        """
        from httpx2 import Limits
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        key = os.environ.get(self.key_variable) or "none"
        http = DefaultAsyncHttpxClient(limits=Limits(max_keepalive_connections=0))
        return AsyncOpenAI(base_url=self.url, api_key=key, timeout=None, max_retries=0, http_client=http)

    def check(self) -> None:
        """Ask the server for its models; nothing is judged.

        Raises:
            ConfigError: It does not answer, or refuses the key.
        """
        from openai import APIConnectionError, APIError, AuthenticationError, PermissionDeniedError

        from loraloop.judge.deadline import within

        client = self.client()
        try:
            within(self.seconds, client.models.list)
        except (APIConnectionError, TimeoutError) as error:
            raise ConfigError(
                f"judge.url={mask(self.url)} does not answer ({error.__cause__ or error}): start the server, or "
                "correct judge.url"
            ) from error
        except (AuthenticationError, PermissionDeniedError) as error:
            there = "does not let it judge" if os.environ.get(self.key_variable) else "is not set"
            raise ConfigError(
                f"judge.url={mask(self.url)} asks for a key: the environment variable {self.key_variable} "
                f"(judge.key_variable) {there}"
            ) from error
        except (APIError, ValueError):  # it answers; not every server lists its models
            return

    def open(self) -> Asking:
        """The judge at work, with all its calls left."""
        from loraloop.judge.asking import Asking
        from loraloop.judge.cache import Cache

        return Asking(
            self.client(),
            self.model,
            self.rubric,
            Cache(self.cache),
            seconds=self.seconds,
            retries=self.retries,
            max_calls=self.max_calls,
            max_tokens=self.max_tokens,
        )
