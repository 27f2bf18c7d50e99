"""The command line: the only file that knows Hydra."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from loraloop.build import Call
    from loraloop.errors import ConfigError
    from loraloop.sweep.trial import Trial

PACKAGED = Path(__file__).parent / "conf"
CONF = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"


def main() -> None:
    """Answer ``--help`` without loading anything; otherwise hand over to Hydra and report errors in plain words."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        from loraloop import usage

        try:
            print(usage.text(CONF), flush=True)
        except BrokenPipeError:
            _hang_up()
        return
    from loraloop.errors import LoraloopError

    verbose = "hydra.verbose=true" in [argument.lower() for argument in arguments]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # OpenMP's threads otherwise spin while they wait: 15 times slower as soon as something else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        _run(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _hang_up()
    except LoraloopError as error:
        if verbose:
            raise
        _fail(error)


def _hang_up() -> None:
    """Leave quietly when the reader of standard output has gone, as ``| head`` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(141)


def _fail(error: Exception) -> None:
    from loraloop.errors import ConfigError

    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    if len(problems) == 1:
        print(f"loraloop: {problems[0]}", file=sys.stderr)
    else:
        print(f"loraloop: {len(problems)} problems:", file=sys.stderr)
        for problem in problems:
            print(f"  - {problem}", file=sys.stderr)
    sys.exit(getattr(error, "exit_code", 1))


def _run(arguments: Sequence[str]) -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    command = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    try:
        command()
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(arguments, error) from error


def job(config: DictConfig) -> Any:
    """What Hydra runs: the stage that the configuration asks for."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from loraloop.errors import LoraloopError
    from loraloop.stages import console

    runtime = HydraConfig.get()
    try:
        call = prepare(config)
        with console.of(call.job):
            result = call()
    except BrokenPipeError:
        _hang_up()
    except LoraloopError as error:
        if runtime.mode == RunMode.RUN and not runtime.verbose:
            _fail(error)  # Hydra would first print a line of its own
        raise
    return result if isinstance(result, (float, tuple)) else None


def prepare(config: DictConfig) -> Call:
    """The stage that Hydra's job asks for, with its parts built and checked.

    Args:
        config: The job's composed configuration; Hydra's own part of it is read from ``HydraConfig``.

    Raises:
        ConfigError: With every problem; nothing was written.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from loraloop import build
    from loraloop.errors import ConfigError

    runtime = HydraConfig.get()
    logging.captureWarnings(capture=True)
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(*(f"{key} is not set, and stage={config.stage} needs it: add {key}=..." for key in missing))
    return build.prepare(
        cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)),
        Path(runtime.runtime.output_dir),
        {str(group): str(choice) for group, choice in runtime.runtime.choices.items() if "/" not in str(group)},
        (*_own_groups(), *(str(override) for override in runtime.overrides.task)),
        Path(runtime.sweep.dir) if runtime.mode == RunMode.MULTIRUN else None,
        _trial(),
    )


def _own_groups() -> Iterator[str]:
    """The override that adds a person's own folders of groups, however they were added, for a command made of a job."""
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources
    own = [each for each in sources if each.provider == "command-line" or "searchpath" in each.provider]
    if own:
        folders = ",".join(f"'{each.schema}://{each.path}'" for each in own)
        yield f"hydra.searchpath=[{folders}]"


def _trial() -> Trial | None:
    from loraloop.sweep.trial import VARIABLE, Trial

    text = os.environ.get(VARIABLE)
    return Trial.decode(text) if text else None


def _explain(arguments: Sequence[str], error: Exception) -> ConfigError:
    """Every override that cannot be composed, one sentence each, with the nearest name that exists.

    Hydra stops at the first problem: each faulty override is taken out in turn until the rest composes.
    """
    from loraloop import suggest
    from loraloop.errors import ConfigError

    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("--config-dir", "-cd", type=Path)
    asked.add_argument("--multirun", "-m", action="store_true")
    flags, others = asked.parse_known_args(arguments)
    overrides = [argument for argument in others if "=" in argument and not argument.startswith("-")]
    if flags.config_dir:
        overrides.insert(0, f"hydra.searchpath=[file://{flags.config_dir.resolve()}]")
    faults: list[tuple[str, Exception]] = []
    while fault := _first_fault(overrides, flags.multirun):
        override, written, cause = fault
        faults.append((written, cause))
        overrides.remove(override)
    if not faults:
        return ConfigError(suggest.first_line(error))
    keys = _keys([_values(override, flags.multirun)[0] for override in overrides])
    own = [Path(found) for override in overrides for found in re.findall(r"file://([^,'\]\s]+)", override)]
    return ConfigError(*(suggest.sentence(written, cause, [CONF, *own], keys) for written, cause in faults))


def _first_fault(overrides: Sequence[str], multirun: bool) -> tuple[str, str, Exception] | None:
    """The first override that does not compose after those before it, what of it was tried, and what Hydra raised."""
    before: list[str] = []
    for override in overrides:
        values = _values(override, multirun)
        for value in values:
            cause = _composes([*before, value])
            if cause is not None:
                return override, value, cause
        before.append(values[0])
    return None


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


def _composes(overrides: Sequence[str]) -> Exception | None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            compose("config", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as cause:
        return cause
    return None


def _keys(overrides: Sequence[str]) -> list[str]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base="1.3"):
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


if __name__ == "__main__":
    main()
