"""A full disk and too little memory, in whatever words a library reports them."""

from __future__ import annotations

import re

from loraloop.errors import LoraloopError

DISK = re.compile(r"No space left|File too large|Disk quota|disk is full|StreamWriter failed|os error (27|28|122)\b")
MEMORY = re.compile(r"out of memory|can't allocate memory|Cannot allocate memory|Unable to allocate|os error 12\b")


class ExhaustedError(LoraloopError):
    """The machine has too little disk or memory for the command."""


def explain(error: BaseException) -> ExhaustedError | None:
    """What to do about an error that says that disk or memory is exhausted; ``None`` for any other error.

    Libraries raise their own classes for it (OSError, RuntimeError, SafetensorError): their messages decide.
    """
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    if DISK.search(said):
        return ExhaustedError(
            f"the disk is full ({said}): free some space, then repeat the command, or go on with resume=FOLDER where a "
            "checkpoint was kept. What was being written does not count; what was whole is whole"
        )
    if isinstance(error, MemoryError) or MEMORY.search(said):
        return ExhaustedError(
            f"out of memory ({said}): lower trainer.micro_batch, trainer.max_length or evaluation.batch_tokens, load "
            "the base with model.quantization=nf4, or end what else runs on this machine"
        )
    return None
