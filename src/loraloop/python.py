"""Python's way in: the command line's configuration, composed and run in this process."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from loraloop.__main__ import CONF, run_stage
from loraloop.cli.explain import explain
from loraloop.core.overrides import accept
from loraloop.core.passwords import MaskedStream
from loraloop.core.threads import wait_briefly
from loraloop.errors import ConfigError
from loraloop.evaluation import store
from loraloop.records import RunResult
from loraloop.registry import manifest

if TYPE_CHECKING:
    from omegaconf import DictConfig

SCORED = ("base", "adapter")


def run(overrides: Sequence[str]) -> RunResult:
    """Compose, run one stage and collect what it left; see :func:`loraloop.run`."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import JobStatus, run_job
    from hydra.types import HydraContext

    wait_briefly()  # as the command line does
    config = _compose(accept(overrides))
    with own_logging(), _masked_output():
        done = run_job(
            hydra_context=HydraContext(config_loader=None, callbacks=Callbacks(config)),  # type: ignore[arg-type]
            task_function=run_stage,
            config=config,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
        )
    result: Any = done._return_value
    if done.status is JobStatus.FAILED:
        raise result
    return _result(str(config.stage), result, Path(str(config.hydra.runtime.output_dir)))


def _compose(overrides: Sequence[str]) -> DictConfig:
    """The configuration with Hydra's own part.

    Raises:
        ConfigError: With every override that cannot be composed.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if flags := [each for each in overrides if each.startswith("-")]:
        raise ConfigError(f"{flags[0]} is a flag of the command line: loraloop.run takes overrides, such as 'lora=r8'")
    callers = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), job_name="loraloop", version_base="1.3"):
            return compose("config", ["hydra.mode=RUN", *overrides], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(overrides, error, CONF) from error
    finally:
        GlobalHydra.instance().hydra = callers


@contextlib.contextmanager
def own_logging() -> Iterator[None]:
    """Within the context Hydra sets up the log of the job; afterwards it is the caller's again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:], root.level = handlers, level


@contextlib.contextmanager
def _masked_output() -> Iterator[None]:
    """Within the context passwords of URLs are masked in what is printed, as on the command line."""
    out, err = (cast("TextIO", MaskedStream(stream)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def _result(stage: str, value: Any, output: Path) -> RunResult:
    scores = {name: store.read(output / "evaluation" / name) for name in SCORED if _scored(output, name)}
    adapter = output / "adapter"
    trained = adapter if adapter.is_dir() else None
    return RunResult(
        stage=stage,
        value=value,
        run=manifest.read(adapter).run_id if trained else None,
        scores={name: dict(score.values) for name, score in scores.items()},
        adapter=trained,
        output=output,
    )


def _scored(output: Path, name: str) -> bool:
    return (output / "evaluation" / name / "score.json").is_file()
