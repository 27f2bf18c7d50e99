"""The command line: the only file that knows Hydra."""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from loraloop.records import Cache, Call
    from loraloop.sweep.trial import Trial

PACKAGED = Path(__file__).parent / "conf"
CONF = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"

HUNG_UP = 141
"""Exit status where the reader of standard output has gone: what a shell gives for SIGPIPE."""


def command() -> None:
    """What the installed command does: :func:`main`, and a quick end.

    Python's own end takes apart every object of every library, for most of a second.
    """
    code: Any = 0
    try:
        main()
    except SystemExit as ended:
        code = 0 if ended.code is None else ended.code
        if not isinstance(code, int):
            raise
    if sys.getprofile() or sys.gettrace() or sys.flags.inspect:  # whoever looks on is not done
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does: threads end, then what was registered is called
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # the person closed it
            stream.flush()
    os._exit(code)


def main() -> None:
    """Answer ``--help`` without loading anything; otherwise hand over to Hydra and report errors in plain words."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        from loraloop.cli.help import text

        try:
            print(text(CONF, arguments), flush=True)
        except BrokenPipeError:
            from loraloop.core.signals import reader_gone

            reader_gone(sys.stdout)
            sys.exit(HUNG_UP)
        return
    if "--version" in arguments:
        from loraloop import __version__

        print(f"loraloop {__version__}")
        return
    from loraloop.core.overrides import accept
    from loraloop.core.passwords import mask_output
    from loraloop.core.signals import READER_GONE, sigterm_raises
    from loraloop.core.threads import wait_briefly
    from loraloop.errors import LoraloopError, TerminatedError

    sys.argv[1:] = arguments = accept(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold bytes that are no text
    mask_output()
    verbose = "hydra.verbose=true" in [argument.lower() for argument in arguments]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    wait_briefly()
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        with sigterm_raises():
            try:
                _run(arguments)
            finally:
                sys.stdout.flush()  # here it is noticed that the reader has gone, and not in Python's own end
        if READER_GONE.is_set():
            sys.exit(HUNG_UP)
    except TerminatedError as terminated:
        sys.exit(HUNG_UP if READER_GONE.is_set() else terminated.exit_code)
    except KeyboardInterrupt:
        print("loraloop: interrupted", file=sys.stderr)
        sys.exit(130)
    except LoraloopError as error:
        if verbose:
            raise
        _fail(error)


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

    from loraloop.workflows.multirun.cache import Cache

    shared = Cache()

    def task(config: DictConfig) -> Any:
        return job(config, shared)

    command = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)
    try:
        command()
    except (HydraException, OmegaConfBaseException) as error:
        from loraloop.cli.explain import explain

        raise explain(arguments, error, CONF) from error
    except ValueError as error:
        if not str(error).startswith("Only one of --run, --multirun"):
            raise
        from loraloop.errors import ConfigError

        raise ConfigError(f"{error}: --cfg and --info are of one job, without -m (--multirun)") from error


def job(config: DictConfig, cache: Cache | None = None) -> Any:
    """Run the stage that the configuration asks for.

    Args:
        config: The job's composed configuration.
        cache: What the jobs of a multirun share; a job on its own does not use it.

    Returns:
        The stage's result where it is a number or several; Hydra hands it to a sweeper.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from loraloop.errors import LoraloopError

    runtime = HydraConfig.get()
    try:
        result = run_stage(config, cache)
    except LoraloopError as error:
        if runtime.mode == RunMode.RUN and not runtime.verbose:
            _fail(error)  # Hydra would first print a line of its own
        raise
    return result if isinstance(result, (float, tuple)) else None


def run_stage(config: DictConfig, cache: Cache | None = None) -> Any:
    """What the stage that the configuration asks for returns; every error is raised.

    Args:
        config: The job's composed configuration.
        cache: What the jobs of a multirun share; a job on its own does not use it.

    Raises:
        LoraloopError: What a person can cure, also where memory or the disk was not enough.
    """
    from loraloop.core import console, exhausted, imports
    from loraloop.errors import LoraloopError

    try:
        with imports.quick():
            call = prepare(config, cache)
        with console.redirect_output(call.job):
            return call()
    except LoraloopError:
        raise
    except Exception as error:
        told = exhausted.explain(error)
        if told is None:
            raise
        raise told from error


def prepare(config: DictConfig, cache: Cache | None = None) -> Call:
    """The stage that Hydra's job asks for, with its parts built and checked.

    Args:
        config: The job's composed configuration; Hydra's own part of it is read from ``HydraConfig``.
        cache: What the jobs of a multirun share; a job on its own does not use it.

    Raises:
        ConfigError: With every problem; nothing was written.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from loraloop.cli import prepare as build
    from loraloop.errors import ConfigError

    runtime = HydraConfig.get()
    _mask_files(Path(runtime.runtime.output_dir) / str(runtime.output_subdir), Path(runtime.sweep.dir))
    logging.captureWarnings(capture=True)
    sys.path += [each.path for each in _own_folders() if each.schema == "file" and each.path not in sys.path]
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        values = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        from loraloop.cli.explain import unresolved

        raise unresolved(error) from error
    if missing:
        raise ConfigError(*(f"{key} is not set, and stage={config.stage} needs it: add {key}=..." for key in missing))
    return build.prepare(
        values,
        Path(runtime.runtime.output_dir),
        {str(group): str(choice) for group, choice in runtime.runtime.choices.items() if "/" not in str(group)},
        (*_own_groups(), *(str(override) for override in runtime.overrides.task)),
        cache if runtime.mode == RunMode.MULTIRUN else None,
        _trial(),
        multirun=runtime.mode == RunMode.MULTIRUN,
    )


def _mask_files(job: Path, sweep: Path) -> None:
    """Mask passwords of URLs in the configuration that Hydra has just written."""
    from loraloop.core import atomic
    from loraloop.core.passwords import mask

    for file in (*job.glob("*.yaml"), *sweep.glob("multirun.yaml")):
        text = file.read_text(encoding="utf8")
        if (masked := mask(text)) != text:
            with atomic.write(file) as stream:
                stream.write(masked.encode())


def _own_groups() -> Iterator[str]:
    """The override that adds a person's own folders of groups, however they were added, for a command made of a job."""
    if own := _own_folders():
        folders = ",".join(f"'{each.schema}://{each.path}'" for each in own)
        yield f"hydra.searchpath=[{folders}]"


def _own_folders() -> list[Any]:
    """A person's own folders of groups; their modules are looked for there too, after all others."""
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources
    return [each for each in sources if each.provider == "command-line" or "searchpath" in each.provider]


def _trial() -> Trial | None:
    from hydra.core.hydra_config import HydraConfig

    from loraloop.sweep.trial import VARIABLE, Trial

    text = os.environ.get(VARIABLE)
    return Trial.decode(text, HydraConfig.get().sweeper.get("storage")) if text else None


if __name__ == "__main__":
    command()
