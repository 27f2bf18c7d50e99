"""Generation by a vLLM server, under the same names as here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from loraloop.core.part import part
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.records import Base
    from loraloop.serve.engine.engine import Resolve
    from loraloop.serve.remote import Remote

HEALTH_SECONDS = 5.0


@part
class VllmBackend:
    """A vLLM server that has the base: ``vllm serve BASE --enable-lora``, ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``.

    It reads adapters from disk, so the registry's folder must be at the same place there.

    Attributes:
        url: The server, without ``/v1``.
        key_variable: Environment variable that holds its key, if it asks for one.
        seconds: Time for a call that is not an answer: to load an adapter, to count tokens.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] = "http://127.0.0.1:8001"
    key_variable: str = "VLLM_API_KEY"
    seconds: Annotated[float, Field(gt=0)] = 60.0

    def check(self) -> None:
        """Ask the server for its health.

        Raises:
            ConfigError: It does not answer.
        """
        import httpx2

        try:
            httpx2.get(f"{self.url.rstrip('/')}/health", timeout=HEALTH_SECONDS).raise_for_status()
        except httpx2.HTTPError as error:
            raise ConfigError(
                f"serve.url={self.url} does not answer ({error}); start it with `vllm serve BASE --enable-lora` and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or take serve=local"
            ) from error

    def attach(self, base: Base, tokenizer: PreTrainedTokenizerBase, resolve: Resolve | None = None) -> Remote:
        """The backend on that server.

        Args:
            base: What the server serves as its base.
            tokenizer: Of the base; its weights are not needed here.
            resolve: Fetches a version that is asked for and not loaded there; without it only loaded ones answer.
        """
        from loraloop.serve.remote import Remote

        headers = {"authorization": f"Bearer {key}"} if (key := os.environ.get(self.key_variable)) else {}
        return Remote(self.url.rstrip("/"), headers, self.seconds, base, tokenizer, resolve)
