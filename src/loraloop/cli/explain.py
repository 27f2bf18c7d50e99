"""Why a command line does not compose: each faulty override in one sentence."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import suggest
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf.errors import OmegaConfBaseException


def explain(arguments: Sequence[str], error: Exception, conf: Path) -> ConfigError:
    """Every override that cannot be composed, one sentence each, with the nearest name that exists.

    Hydra stops at the first problem: each faulty override is taken out in turn until the rest composes.

    Args:
        arguments: The command line.
        error: What Hydra raised.
        conf: The package's own folder of groups.
    """
    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("--config-dir", "-cd", type=Path)
    asked.add_argument("--multirun", "-m", action="store_true")
    for flag in ("--cfg -c", "--package -p", "--config-path -cp", "--config-name -cn", "--info -i"):
        asked.add_argument(*flag.split())  # Hydra's own flags that take a value, which is no override
    flags, others = asked.parse_known_args(arguments)
    overrides = [argument for argument in others if not argument.startswith("-")]
    if flags.config_dir and not flags.config_dir.is_dir():
        return ConfigError(f"--config-dir {flags.config_dir} is not a folder (from {Path.cwd()})")
    if flags.config_dir:
        overrides.insert(0, f"hydra.searchpath=[file://{flags.config_dir.resolve()}]")
    faults: list[tuple[str, Exception]] = []
    while fault := _first_fault(overrides, flags.multirun, conf):
        override, written, cause = fault
        faults.append((written, cause))
        overrides.remove(override)
    if not faults:
        return ConfigError(suggest.first_line(error))
    keys = _keys([_values(override, flags.multirun)[0] for override in overrides], conf)
    own = [Path(found) for override in overrides for found in re.findall(r"file://([^,'\]\s]+)", override)]
    return ConfigError(*(suggest.sentence(written, cause, [conf, *own], keys) for written, cause in faults))


def unresolved(error: OmegaConfBaseException) -> ConfigError:
    """Why an interpolation has no value, and how the other kinds of ``${...}`` are written."""
    return ConfigError(
        f"{error.full_key}: {suggest.first_line(error).rstrip('.')}; ${{KEY}} is another key's value, "
        "${oc.env:NAME} a variable of the environment, and \\${ in quotes the characters themselves"
    )


def _first_fault(overrides: Sequence[str], multirun: bool, conf: Path) -> tuple[str, str, Exception] | None:
    """The first override that does not compose after those before it, what of it was tried, and what Hydra raised."""
    before: list[str] = []
    for override in overrides:
        values = _values(override, multirun)
        for value in values:
            cause = _composes([*before, value], conf)
            if cause is not None:
                earlier = _blamed(cause, before)
                return (earlier, earlier, cause) if earlier else (override, value, cause)
        before.append(values[0])
    return None


def _blamed(cause: Exception, before: Sequence[str]) -> str | None:
    """An earlier override whose key is gone with the choice that comes after it."""
    found = re.search(r"Could not override '([^']+)'", str(cause))
    return next((each for each in before if found and each.partition("=")[0] == found[1]), None)


def _values(override: str, multirun: bool) -> list[str]:
    """What a multirun makes of an override: one for each value that it sweeps over."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import IntervalSweep
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return [override]
    if not multirun or not parsed.is_sweep_override():
        return [override]
    key, swept = override.partition("=")[0], parsed.value()
    if isinstance(swept, IntervalSweep):
        return [f"{key}={swept.start}"]
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def _composes(overrides: Sequence[str], conf: Path) -> Exception | None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            compose("config", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as cause:
        return cause
    return None


def _keys(overrides: Sequence[str], conf: Path) -> list[str]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
    plain = OmegaConf.to_container(config, resolve=False)
    keys: list[str] = []

    def walk(node: object, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                keys.append(f"{path}{key}")
                walk(value, f"{path}{key}.")

    walk(plain, "")
    keys.remove("hydra")
    return keys
