"""Overrides as text: what Hydra's grammar and the shell both read back as it was meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

PLAIN = re.compile(r"[A-Za-z0-9_./:@%+-]+")
"""Values that neither Hydra's grammar nor a shell reads in another way."""


OPEN = ("server.roles.", "server.names.", "source.columns.", "hydra.sweeper.params=")
"""Maps whose keys are a person's own: Hydra asks for a ``+`` before a key that the shipped YAML does not have."""
FREE_TEXT = re.compile(r"(\+{0,2}(?:client|comment|conversation|correction|key|reason|source\.instruction))=(.*)", re.S)
"""Keys whose value is a person's sentence: no character in it has a meaning in Hydra's grammar."""
QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1)[^\\])*\1""", re.S)
"""A value in Hydra's own quotes."""
REPLACED = re.compile(r"(server\.(?:roles|names))=(\{.*\})", re.S)
"""Such a map given as a whole: Hydra would merge it into the shipped one."""


def assign(key: str, text: str) -> str:
    r"""``KEY=VALUE`` whose value Hydra reads as exactly this text, in quotes where its grammar asks for them.

    Between quotes Hydra takes every character as it is, but for a quote, a ``\`` before a quote, and the ``${`` of an
    interpolation (Hydra, "Basic Override syntax", Quoted values; OmegaConf, "Escaping in interpolated strings").

    Args:
        key: With its ``+`` or ``++``, where it has one.
        text: The value; one that looks like a number or a list stays text only in quotes.
    """
    if PLAIN.fullmatch(text) and not _typed(text):
        return f"{key}={text}"
    escaped = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), escaped)
    return f'{key}="{escaped}"'


def _typed(text: str) -> bool:
    """Whether Hydra reads the bare word as a number, a truth value or null."""
    try:
        float(text)
    except ValueError:
        return text.lower() in {"true", "false", "null"}
    return True


def shell(override: str) -> str:
    """An override as a shell takes it: in quotes where it has other than plain characters."""
    return override if re.fullmatch(rf"[+~]*{PLAIN.pattern}(={PLAIN.pattern})?", override) else shlex.quote(override)


def command(overrides: Iterable[str]) -> str:
    """The command line that gives these overrides to ``loraloop``."""
    return " ".join(["loraloop", *map(shell, overrides)])


def accept(arguments: Iterable[str]) -> list[str]:
    """The command line as Hydra is given it.

    Home folders are expanded, sentences are quoted, and new keys are added to open maps. Roles and names that are given
    as a whole map replace the shipped ones.
    """
    return [each for argument in arguments for each in _open_map(_free_text(argument) or _expand_home(argument))]


def _free_text(argument: str) -> str | None:
    """An override of a sentence in Hydra's quotes; ``None`` for another key. ``null`` and what is quoted stay."""
    found = FREE_TEXT.fullmatch(argument)
    if found is None:
        return None
    as_it_is = found[2] == "null" or QUOTED.fullmatch(found[2])
    return argument if as_it_is else assign(found[1], found[2])


def _open_map(argument: str) -> list[str]:
    if found := REPLACED.fullmatch(argument):
        return [f"~{found[1]}", f"+{argument}"]
    return [f"++{argument}" if argument.startswith(OPEN) and "=" in argument else argument]


def _expand_home(argument: str) -> str:
    """An override whose value begins with ``~/`` with the home folder in its place; shells leave it after a ``=``."""
    found = re.fullmatch(r"([+\w./@-]+)=(~/[^,]*)", argument)
    return assign(found[1], str(Path(found[2]).expanduser())) if found else argument


def resume_command(overrides: Iterable[str], output: Path, begin: str | None = None) -> str:
    """The command line that goes on with a run, from any folder: relative paths mean what they meant to the run.

    Args:
        overrides: Those of the run.
        output: The run's own folder.
        begin: The version that an alias of ``continue_from`` meant to the run: it may mean another one by now.
    """
    said = {"resume": str(output)} | ({"continue_from": begin} if begin else {})
    kept = [each for each in overrides if each.lstrip("+").partition("=")[0] not in said]
    return f"cd {shlex.quote(str(Path.cwd()))} && {command([*kept, *(assign(*each) for each in said.items())])}"
