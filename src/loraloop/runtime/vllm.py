"""Answers of a merged model, or of a PEFT folder on its base, through a vLLM server."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from loraloop.core.part import part
from loraloop.errors import ArtefactError, ConfigError
from loraloop.records import Export, RuntimeAnswer

if TYPE_CHECKING:
    import httpx2

    from loraloop.protocols import BaseFiles

MODULE = "vllm.entrypoints.openai.api_server"
"""The server as a module: ``vllm serve`` asks for a package of the name vllm, and the CPU's has another name."""
INSTALL = "make test-vllm makes one (.venv-vllm), or pip install vllm in an environment of its own"
ADAPTER = "loraloop-export"
SECONDS = 600
"""Longest wait for one answer."""
HELLO = 10
"""Longest wait for a running server's version."""
LOG_BYTES = 1 << 20
TEMPLATE = "chat_template.jinja"


@part
class Vllm:
    """Starts vLLM with the export, or asks a server that runs.

    Attributes:
        python: Interpreter of an environment that has vLLM; it is started, and ended afterwards.
        url: Server that runs with the export as its model; for an adapter alone, with the base, ``--enable-lora`` and
            VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
        dtype: In which a started server computes; ``auto`` is vLLM's choice.
        context: Most tokens of a prompt with its answer, in a started server.
        startup: Seconds that it may take.
        options: More options of a started server, such as ``--enforce-eager``.
    """

    python: Path | None = None
    url: Annotated[str, Field(pattern=r"^https?://.*[^/]$")] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    context: Annotated[int, Field(ge=64)] = 2048
    startup: Annotated[float, Field(gt=0)] = 600.0
    options: tuple[str, ...] = ()

    FORMS: ClassVar[tuple[str, ...]] = ("merged", "adapter")

    def check(self) -> None:
        """See that there is a vLLM.

        Raises:
            ConfigError: Neither an interpreter nor a server is named, both are, or the interpreter has no vLLM.
        """
        if (self.python is None) == (self.url is None):
            raise ConfigError(
                "runtime=vllm needs runtime.python=PATH, the interpreter of an environment with vLLM, or "
                f"runtime.url=http://HOST:PORT of a server that runs; {INSTALL}"
            )
        if self.python is not None:
            found = (
                subprocess.run(
                    [self.python, "-c", "import importlib.util as u; raise SystemExit(u.find_spec('vllm') is None)"],
                    check=False,
                )
                if self.python.is_file()
                else None
            )
            if found is None or found.returncode:
                raise ConfigError(f"runtime.python={self.python} is no interpreter that has vLLM: {INSTALL}")

    def versions(self) -> dict[str, str]:
        """VLLM's version, as its environment or its server tells it.

        Raises:
            ConfigError: The interpreter cannot import it.
            ArtefactError: The server does not answer.
        """
        if self.python is None:
            import httpx2

            with httpx2.Client(base_url=str(self.url), timeout=HELLO) as client:
                told = _sent(client, "GET", "/version").json()["version"]
        else:
            command = [str(self.python), "-c", "import vllm; print(vllm.__version__)"]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                why = (made.stderr.strip().splitlines() or ["it says nothing"])[-1][:300]
                raise ConfigError(f"runtime.python={self.python} cannot import vllm: {why}; {INSTALL}")
            told = made.stdout.split()[-1]
        return {"vllm": str(told)}

    def open(self, folder: Path, export: Export, base: BaseFiles) -> VllmSession:
        """Start the server, or find it, and load the adapter where it is one.

        Raises:
            ArtefactError: vLLM cannot load the export, or the adapter was trained on a 4-bit base.
        """
        alone = export.form == "adapter"
        if alone and export.trained_on != "none":
            raise ArtefactError(
                f"runtime=vllm loads a base unquantised here, and {folder} was trained on {export.trained_on}: publish "
                "it with publish=merged"
            )
        server = None if self.url else _Server(self._command(base.folder() if alone else folder, alone, folder))
        try:
            address = str(self.url) if server is None else server.wait(self.startup)
            return VllmSession(address, server, folder if alone else None)
        except BaseException:
            if server is not None:
                server.close()
            raise

    def _command(self, model: Path, alone: bool, folder: Path) -> list[str]:
        settings = ["--model", str(model.absolute()), "--dtype", self.dtype, "--max-model-len", str(self.context)]
        settings += ["--enable-lora", "--max-lora-rank", "64"] if alone else []
        template = folder / TEMPLATE
        settings += ["--chat-template", str(template.absolute())] if alone and template.is_file() else []
        return [str(self.python), "-m", MODULE, *settings, *self.options]


class _Server:
    """A vLLM server that was started here."""

    def __init__(self, command: Sequence[str]) -> None:
        self._port = _free_port()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the server)
        here = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self._port)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ, **here},
            start_new_session=True,
        )

    def wait(self, seconds: float) -> str:
        """Its address, once it answers.

        Raises:
            ArtefactError: It ended, or did not answer in time.
        """
        import httpx2

        address, end = f"http://127.0.0.1:{self._port}", time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{address}/health", timeout=5).status_code == 200:
                    return address
            time.sleep(0.5)
        self._log.seek(0)
        told = [line for line in self._log.read().decode("utf8", "replace").splitlines() if "rror" in line]
        why = told[-1].strip()[:300] if told else f"no answer within {seconds:g} s"
        raise ArtefactError(f"vLLM did not start: {why}")

    def dtype(self) -> str | None:
        """The type in which it computes, by its log: ``auto`` is another one on a CPU and on a GPU."""
        told = os.pread(self._log.fileno(), LOG_BYTES, 0)  # which leaves the place at which the server writes
        found = re.search(r"\bdtype=torch\.(\w+)", told.decode("utf8", "replace"))
        return found[1] if found else None

    def close(self) -> None:
        """End it with the processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()


class VllmSession:
    """An export that vLLM has loaded; prompts go there as text, so that its own tokenizer splits them."""

    def __init__(self, address: str, server: _Server | None, adapter: Path | None) -> None:
        import httpx2

        self._server, self._adapter = server, adapter
        self._client = httpx2.Client(base_url=address, timeout=SECONDS)
        self._base = str(self._read("GET", "/v1/models")["data"][0]["id"])
        self._model = self._base if adapter is None else ADAPTER
        if adapter is not None:
            self._unload()
            self._read("POST", "/v1/load_lora_adapter", {"lora_name": ADAPTER, "lora_path": str(adapter.absolute())})

    def answer(self, prompt: str, new_tokens: int) -> RuntimeAnswer:
        """The greedy answer to a prompt, up to its end token or ``new_tokens``."""
        made = self._complete(prompt, new_tokens, 1)
        tokens = tuple(str(each) for each in made["logprobs"]["tokens"])
        ended = made["finish_reason"] == "stop"
        text = str(made["text"])
        # The end token is told as a token and is no part of the text.
        if ended and tokens and "".join(tokens) != text:
            tokens = tokens[:-1]
        return RuntimeAnswer(text=text, tokens=tokens, ended=ended)

    def top(self, prompt: str, count: int) -> dict[int, float]:
        """The ``count`` likeliest next tokens with the logarithms of their probabilities."""
        made = self._complete(prompt, 1, count, return_tokens_as_token_ids=True)
        (first, *_) = made["logprobs"]["top_logprobs"]
        found = {int(name.removeprefix("token_id:")): float(value) for name, value in first.items()}
        return dict(sorted(found.items(), key=lambda pair: -pair[1])[:count])

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int]:
        """A conversation as tokens.

        Raises:
            ArtefactError: vLLM cannot run the template.
        """
        asked = {"model": self._model, "messages": list(messages), "add_generation_prompt": True}
        found = self._read("POST", "/tokenize", {**asked, **({"tools": list(tools)} if tools else {})})
        return [int(each) for each in found["tokens"]]

    def computes(self) -> dict[str, str]:
        """The type that a server told which was started here; another one's is not known."""
        known = self._server.dtype() if self._server is not None else "the server's"
        return {"dtype": known} if known else {}

    def close(self) -> None:
        """End a server that was started here; give a running one back as it was."""
        if self._server is not None:
            self._server.close()
        elif self._adapter is not None:
            self._unload()
        self._client.close()

    def _unload(self) -> None:
        _sent(self._client, "POST", "/v1/unload_lora_adapter", {"lora_name": ADAPTER})

    def _complete(self, prompt: str, new_tokens: int, alternatives: int, **more: Any) -> Any:
        asked = {"model": self._model, "prompt": prompt, "max_tokens": new_tokens, "temperature": 0.0}
        return self._read("POST", "/v1/completions", {**asked, "logprobs": alternatives, **more})["choices"][0]

    def _read(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = _sent(self._client, method, path, body)
        if answer.status_code != 200:
            raise ArtefactError(f"vLLM refused {path}: {answer.text[:300]}")
        return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else None


def _sent(client: httpx2.Client, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx2.Response:
    import httpx2

    try:
        return client.request(method, path, json=body)
    except httpx2.HTTPError as error:
        raise ArtefactError(
            f"vLLM at {client.base_url} does not answer {path} ({error or type(error).__name__}): see that it runs; "
            "where it is slow, compare fewer rows with rows=NUMBER"
        ) from error


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
