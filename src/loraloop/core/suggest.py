"""Sentences for a mistyped override: what was written, which names there are, which one was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def nearest(word: str, names: Iterable[str]) -> str:
    """``" (did you mean NAME?)"`` for the most similar of ``names``, or an empty string."""
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def first_line(error: Exception) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Error parsing override")]
    return (said or lines or [type(error).__name__])[0]


def options(conf: Path, group: str) -> list[str]:
    """The choices of a config group."""
    return sorted(file.stem for file in (conf / group).glob("*.yaml"))


def sentence(override: str, cause: Exception, folders: Sequence[Path], keys: Sequence[str]) -> str:
    """Why ``override`` cannot be used, and what to write instead.

    Args:
        override: As written on the command line, such as ``trainer.lerning_rate=1``.
        cause: What Hydra raised for it.
        folders: Where config groups are: the package's folder and the person's own.
        keys: Every dotted key of the composed configuration.
    """
    key, _, value = override.partition("=")
    name = key.lstrip("+~").partition("@")[0]
    there = sorted({choice for folder in folders for choice in options(folder, name)})
    if there and "Could not find" in str(cause):
        return f"{override}: there is no {name} named {value!r}{nearest(value, there)}; there are {', '.join(there)}"
    if "Ambiguous value" in str(cause):
        return f"{override}: several values are a run each with -m (--multirun); one list of them is {key}=[{value}]"
    if key.startswith("+") or re.search(r"mismatched|extraneous|no viable|LexerNoViable|token recognition", str(cause)):
        return f"{override}: {first_line(cause)}"
    parent = name.rpartition(".")[0]
    siblings = [other for other in keys if other.rpartition(".")[0] == parent]
    if name not in keys:
        short = [other.rpartition(".")[2] for other in siblings if not other.endswith("_target_")]
        known = f"; {parent or 'the top level'} has {', '.join(short) or 'no keys'}" if siblings else ""
        return f"{override}: there is no key {name}{nearest(name, siblings or keys)}{known}"
    return f"{override}: {first_line(cause)}"
