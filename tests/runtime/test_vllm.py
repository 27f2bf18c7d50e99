"""What is refused before vLLM is started; benchmarks/export.py runs the real one."""

import sys
from pathlib import Path

import pytest

from loraloop.errors import ArtefactError, ConfigError
from loraloop.records import Export
from loraloop.runtime.vllm import Vllm


@pytest.mark.parametrize("given", [{}, {"python": Path(sys.executable), "url": "http://localhost:8000"}])
def test_one_of_interpreter_and_server_is_named(given):
    """Neither and both are refused, with what to write and how vLLM is installed."""
    with pytest.raises(ConfigError, match=r"runtime\.python=PATH.* or runtime\.url=.*make test-vllm"):
        Vllm(**given).check()


@pytest.mark.parametrize("python", [sys.executable, "/no/such/python"])
def test_an_interpreter_without_vllm_is_told(python):
    """An interpreter that is not there, or has no vLLM, is named before work."""
    with pytest.raises(ConfigError, match=r"is no interpreter that has vLLM"):
        Vllm(python=Path(python)).check()


def test_an_adapter_of_a_quantised_base_is_refused(tmp_path):
    """VLLM would load the base unquantised, on which the adapter was not trained."""
    export = Export(form="adapter", dtype="", version="", content="", base="b", trained_on="nf4")
    with pytest.raises(ArtefactError, match=r"was trained on nf4: publish it with publish=merged"):
        Vllm(url="http://localhost:8000").open(tmp_path, export, None)


def test_a_server_that_does_not_start_is_told(tmp_path):
    """When the process ends at once, what it said is in the message, and nothing is left running."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'ValueError: no such model'\nexit 1\n")
    program.chmod(0o755)
    export = Export(form="merged", dtype="", version="", content="", base="b", trained_on="none")
    with pytest.raises(ArtefactError, match="vLLM did not start: ValueError: no such model"):
        Vllm(python=program).open(tmp_path, export, None)


def test_a_server_that_is_gone_is_told():
    """Where nothing listens at runtime.url, the address and what to see to are in the message."""
    with pytest.raises(
        ArtefactError, match=r"vLLM at http://127\.0\.0\.1:9 does not answer /version .*see that it runs"
    ):
        Vllm(url="http://127.0.0.1:9").versions()


def test_a_broken_vllm_is_told(tmp_path):
    """Where its interpreter cannot import vLLM, the last line of the traceback is in the message."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'ImportError: libcuda.so' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(ConfigError, match=r"cannot import vllm: ImportError: libcuda\.so"):
        Vllm(python=program).versions()
