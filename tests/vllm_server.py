"""A real vLLM server, for the tests that ``make test-vllm`` runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2

from waiting import PATIENCE, until

MODULE = "vllm.entrypoints.openai.api_server"
"""`vllm serve` of the CPU build asks for the metadata of a package that is not there."""


@contextlib.contextmanager
def run_vllm(folder: Path, log: Path, dtype: str = "float32") -> Iterator[str]:
    """The address of a vLLM server on the model in ``folder``; it ends with the block, with every process of its own.

    Args:
        folder: The base.
        log: The file that its output goes to.
        dtype: Of its weights.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--host 127.0.0.1 --port {port} --dtype {dtype} --max-model-len 2048 --enable-lora --max-lora-rank 64"
    lora = "--max-loras 2 --max-cpu-loras 8 --max-num-seqs 8 --enable-prefix-caching --enable-prompt-tokens-details"
    switches = dict.fromkeys(("VLLM_NO_USAGE_STATS", "VLLM_SERVER_DEV_MODE", "VLLM_CPU_KVCACHE_SPACE"), "1")
    settings = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"} | switches
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | settings
    command = [os.environ["LORALOOP_VLLM"], "-m", MODULE, "--model", str(folder), *options.split(), *lora.split()]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-4000:]
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{url}/health").is_success
        return False

    try:
        until(ready, "vLLM is ready", pause=0.5)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def running(url: str) -> int:
    """Answers that a real vLLM is generating, or that wait there."""
    text = httpx2.get(f"{url}/metrics", timeout=PATIENCE).text
    return int(sum(map(float, re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE))))
