"""``loraloop.run``: the command line's stages from Python."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import loraloop
from conftest import SMALL
from loraloop.core.adapter_files import WEIGHTS
from loraloop.errors import ConfigError


class Cell(io.StringIO):
    """A stream as ipykernel gives a notebook: it has neither a descriptor nor an encoding to change."""

    def fileno(self):
        """There is none."""
        raise io.UnsupportedOperation("fileno")


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """An empty folder, and a function that runs a cell and gives back its result and what it printed."""
    monkeypatch.chdir(tmp_path)

    def cell(*overrides):
        out, err = Cell(), Cell()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            result = loraloop.run(*overrides)
            assert (sys.stdout, sys.stderr) == (out, err)
        return result, out.getvalue(), err.getvalue()

    return cell


def test_two_runs_of_a_notebook_give_their_results(notebook):
    """Each of two runs gives run id, scores and adapter of its own, and leaves streams, log and Hydra as they were."""
    from hydra.core.global_hydra import GlobalHydra
    from mlflow import MlflowClient

    handlers, shown = logging.getLogger().handlers[:], warnings.showwarning
    results = []
    for rank in (2, 4):
        result, out, _ = notebook(*SMALL, f"lora.r={rank}")
        results.append(result)
        assert "base         adapter" in out
        run = MlflowClient(f"sqlite:///{Path.cwd()}/mlruns/mlflow.db").get_run(result.run)
        assert run.data.params["lora.r"] == str(rank)
        assert result.scores["adapter"]["loss"] == result.value == pytest.approx(run.data.metrics["final/loss"])
        assert result.scores["base"]["loss"] > 0
        assert (result.adapter / WEIGHTS).is_file()
        assert result.output == result.adapter.parent
    assert results[0].output != results[1].output
    assert logging.getLogger().handlers == handlers
    assert warnings.showwarning is shown
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(dataclasses.FrozenInstanceError):
        results[0].run = "another"


def test_a_stage_without_an_adapter_gives_what_there_is(notebook):
    """``stage=collect`` writes its file; there are no scores, no run and no adapter."""
    result, out, _ = notebook("stage=collect", "source.runs=1", "dataset.export=rows.jsonl")
    assert "rows         " in out
    assert Path("rows.jsonl").is_file()
    assert (result.stage, result.value, result.run, dict(result.scores), result.adapter) == (
        "collect",
        None,
        None,
        {},
        None,
    )


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        (
            ("loar=r8", "lora=r9"),
            ("loar=r8: there is no key loar (did you mean lora?)", "lora=r9: there is no lora named"),
        ),
        (("lora.r=abc", "trainer.epochs=-1"), ("lora.r='abc': input should be", "trainer.epochs=-1: input should be")),
        (("-m", "lora=r8,r16"), ("-m is a flag of the command line",)),
    ],
)
def test_an_error_is_an_exception_with_the_command_lines_words(notebook, desk, overrides, problems):
    """What the command line refuses is a ConfigError with the same sentences, and nothing is printed."""
    with pytest.raises(ConfigError) as error:
        notebook(*overrides)
    assert all(found.startswith(start) for found, start in zip(error.value.problems, problems, strict=True))
    if not overrides[0].startswith("-"):
        printed = desk.attempt(*overrides).err
        assert all(problem in printed for problem in error.value.problems)


def test_an_error_of_the_work_is_raised_too(notebook):
    """An error after the parts were built, here a folder that holds a run, is raised as it is and ends no process."""
    from loraloop.errors import DataError

    Path("there").mkdir()
    Path("there/dataset.jsonl").touch()
    with pytest.raises(DataError, match="there holds an earlier run"):
        notebook(*SMALL, "hydra.run.dir=there")


def test_passwords_stay_masked(notebook):
    """A URL's password is masked in what a run keeps of its configuration, as on the command line."""
    result, _, _ = notebook(
        "stage=collect", "source.runs=1", "dataset.export=rows.jsonl", "registry.uri=http://u:pw@h/"
    )
    kept = [path.read_text() for path in (result.output / ".hydra").glob("*.yaml")]
    assert kept
    assert not any("u:pw@" in text for text in kept)


def test_the_package_itself_stays_light():
    """``import loraloop`` and the sight of ``run`` load the standard library alone."""
    code = (
        "import sys; import loraloop; loraloop.run; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'hydra', 'omegaconf', 'pydantic', 'numpy', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
