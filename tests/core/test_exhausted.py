"""Errors that say that disk or memory is exhausted."""

from __future__ import annotations

import errno
import os

import pytest

from loraloop.core import exhausted


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/3"),
    ],
)
def test_a_full_disk_is_told_in_one_sentence(error):
    """Whichever library reports it, a full disk is an error that asks for space."""
    assert "free some space" in str(exhausted.explain(error))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 671744 bytes."),
    ],
)
def test_too_little_memory_is_told_in_one_sentence(error):
    """Whichever library reports it, too little memory is an error that names what to lower."""
    assert "lower trainer.micro_batch" in str(exhausted.explain(error))


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), RuntimeError("mat1 and mat2"), KeyError(1)]
)
def test_any_other_error_is_left_alone(error):
    """An error that says nothing of disk or memory keeps its traceback."""
    assert exhausted.explain(error) is None
