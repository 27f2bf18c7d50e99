"""Answers of a GGUF export through llama.cpp's server, which the package ``xllamacpp`` brings compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from loraloop.core.extras import require
from loraloop.core.part import part
from loraloop.errors import ArtefactError, ConfigError
from loraloop.records import Export, RuntimeAnswer

if TYPE_CHECKING:
    import httpx2

    from loraloop.protocols import BaseFiles

EXTRA = "gguf"
TEMPLATE = "chat_template.jinja"
KNOWN = "chatml"
"""A chat template of llama.cpp's own."""
SECONDS = 600
"""Longest wait for one answer."""


@part
class LlamaCpp:
    """Runs llama.cpp's server on the CPU, within this process, with the settings that it has by itself.

    Attributes:
        base: The base as GGUF, for an export of the LoRA alone; ``None``: the file that the base was read from, or one
            that is written for the occasion in ``f16``.
        threads: ``None`` is one a pair of processors: llama.cpp's threads wait for one another without sleeping, and
            one that has no processor to itself stops all.
        context: Most tokens of a prompt with its answer.
    """

    base: Path | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    context: Annotated[int, Field(ge=64)] = 2048

    FORMS: ClassVar[tuple[str, ...]] = ("gguf", "gguf-lora")

    def check(self) -> None:
        """See that llama.cpp is there.

        Raises:
            MissingDependencyError: ``xllamacpp`` is not installed.
            ConfigError: ``base`` is no file.
        """
        require("xllamacpp", EXTRA)
        if self.base is not None and not self.base.is_file():
            raise ConfigError(f"runtime.base={self.base} is no file: name the base as GGUF")

    def versions(self) -> dict[str, str]:
        """The library that answers, whose last part is llama.cpp's build."""
        return {"xllamacpp": str(require("xllamacpp", EXTRA).__version__)}

    def open(self, folder: Path, export: Export, base: BaseFiles) -> LlamaCppSession:
        """Load an export.

        Raises:
            ArtefactError: llama.cpp cannot load it, or cannot run its chat template.
        """
        import httpx2

        library = require("xllamacpp", EXTRA)
        (file,) = folder.glob("*.gguf")
        _require_gguf(file)
        with TemporaryDirectory() as scratch:  # llama.cpp keeps the file open
            alone = export.form == "gguf-lora"
            model = (self.base or base.gguf(Path(scratch))) if alone else file
            params = self._params(library, model, folder / TEMPLATE)
            if alone:
                params.lora_adapters = [library.CommonAdapterLoraInfo(str(file), 1.0)]
            server = _started(library, params, file)
        return LlamaCppSession(server, httpx2.Client(base_url=server.listening_address, timeout=SECONDS))

    def _params(self, library: Any, model: Path, template: Path) -> Any:
        params = library.CommonParams()
        params.model.path = str(model)
        params.n_ctx, params.n_parallel, params.port, params.verbosity = self.context, 1, 0, 0
        params.warmup, params.use_jinja = False, True
        threads = self.threads or max(1, (os.cpu_count() or 1) // 2)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        if template.is_file():
            params.chat_template = template.read_text("utf8")
        return params


def _started(library: Any, params: Any, file: Path) -> Any:
    """The server; what it cannot run is found by a second start."""
    try:
        return _server(library, params)
    except (ValueError, RuntimeError) as error:
        params.chat_template = KNOWN
        try:
            _server(library, params)
        except (ValueError, RuntimeError):
            raise ArtefactError(f"llama.cpp cannot load {file}: {error}") from error
        raise ArtefactError(
            f"llama.cpp cannot run the chat template of {file.name}, and can load the rest: take publish=merged with "
            "runtime=transformers or runtime=vllm, or train with dataset.template=chatml, which llama.cpp runs"
        ) from error


def _server(library: Any, params: Any) -> Any:
    """A server that answers: one that is given up before it does may wait for its own threads without end."""
    import httpx2

    made = library.Server(params)
    httpx2.get(f"{made.listening_address}/health", timeout=SECONDS)
    return made


def _require_gguf(file: Path) -> None:
    """Check that a file is whole enough to be read: llama.cpp may end the process on one that is not."""
    from gguf import GGUFReader

    try:
        GGUFReader(file)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise ArtefactError(f"{file} is damaged or no GGUF: {error}") from error


class LlamaCppSession:
    """A loaded export; prompts go to the server as text, so that its own tokenizer splits them."""

    def __init__(self, server: Any, client: httpx2.Client) -> None:
        self._server, self._client = server, client

    def answer(self, prompt: str, new_tokens: int) -> RuntimeAnswer:
        """The greedy answer to a prompt, up to its end token or ``new_tokens``."""
        made = self._complete(prompt, new_tokens, 1)
        ended = made["stop_type"] == "eos"
        steps = made["completion_probabilities"]
        tokens = [bytes(each["bytes"]).decode("utf8", "replace") for each in (steps[:-1] if ended else steps)]
        return RuntimeAnswer(text=str(made["content"]), tokens=tuple(tokens), ended=ended)

    def top(self, prompt: str, count: int) -> dict[int, float]:
        """The ``count`` likeliest next tokens with the logarithms of their probabilities."""
        (first, *_) = self._complete(prompt, 1, count)["completion_probabilities"]
        return {int(each["id"]): float(each["logprob"]) for each in first["top_logprobs"]}

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int]:
        """A conversation as tokens.

        Raises:
            ArtefactError: llama.cpp cannot run the template.
        """
        asked = {"messages": list(messages), **({"tools": list(tools)} if tools else {})}
        text = self._post("/apply-template", asked)["prompt"]
        found = self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        return [int(each) for each in found["tokens"]]

    def computes(self) -> dict[str, str]:
        """The file's type says it."""
        return {}

    def close(self) -> None:
        """Stop the server."""
        self._client.close()
        del self._server

    def _complete(self, prompt: str, new_tokens: int, alternatives: int) -> Any:
        greedy = {"temperature": 0.0, "top_k": 1, "repeat_penalty": 1.0, "n_predict": new_tokens}
        return self._post("/completion", {"prompt": prompt, "n_probs": alternatives, **greedy})

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = self._client.post(path, json=body)
        if answer.status_code != 200:
            raise ArtefactError(f"llama.cpp refused {path}: {answer.text[:300]}")
        return answer.json()
