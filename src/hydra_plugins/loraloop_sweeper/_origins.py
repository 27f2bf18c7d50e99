"""Where a search space was given: on the command line, in ``hydra.sweeper.params``, or in the file of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from hydra_plugins.loraloop_sweeper._overrides import ParsedOverrides

PARAMS = "hydra.sweeper.params"


def rows(
    config: DictConfig, params: Mapping[str, Any], arguments: Sequence[str], asked: ParsedOverrides
) -> list[tuple[str, str, str]]:
    """Key, values and origin of what is varied, and of what a sweep's file varies and the command line fixes.

    Args:
        config: The sweep's composed configuration.
        params: Its ``hydra.sweeper.params``, in which a file's and the command line's have been merged.
        arguments: The overrides of the command line for the jobs.
        asked: What params and arguments together ask for.
    """
    typed = {_key(line) for line in arguments}
    given = {key for line in config.hydra.overrides.hydra if line.lstrip("+").startswith(PARAMS) for key in _keys(line)}

    def origin(key: str) -> str:
        file = config.hydra.runtime.choices.get("sweeps")
        return PARAMS if key in given or not file else f"sweeps={file}"

    found = []
    for key, dimension in asked.space.items():
        where = "command line" if key in typed else origin(key)
        replaced = f", in place of {params[key]} of {origin(key)}" if key in typed and key in params else ""
        found.append((key, str(dimension), where + replaced))
    for key in sorted(params.keys() & asked.settings.keys()):
        where = f"command line, in place of {params[key]} of {origin(key)}" if key in typed else origin(key)
        found.append((key, f"{asked.settings[key]}, not varied", where))
    if function := config.hydra.sweeper.get("custom_search_space"):
        found.append(("more", f"as {function} suggests", "hydra.sweeper.custom_search_space"))
    return found


def _key(line: str) -> str:
    return str(OverridesParser.create().parse_override(line).get_key_element())


def _keys(line: str) -> set[str]:
    override = OverridesParser.create().parse_override(line)
    value = override.value()
    rest = override.key_or_group.removeprefix(PARAMS).lstrip(".")
    return {str(key) for key in value} if isinstance(value, dict) and not rest else {rest}
