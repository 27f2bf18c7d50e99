"""The package as others install it: a wheel, outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> None:
    """Build the wheel with the backend that ``pyproject.toml`` names."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)


def install(wheel: Path, place: Path) -> None:
    """Install the wheel into an environment that has the dependencies, and neither the checkout nor its tests.

    The path file is written after the installation, which so knows nothing of the checkout's own one.
    """
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder with the wheel in ``dist`` and an environment that it is installed in, made by the first worker."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "installed"
    with FileLock(f"{shared}.lock"):
        if not (shared / "done").exists():
            build(shared / "dist")
            install(next((shared / "dist").glob("*.whl")), shared / "environment")
            (shared / "done").touch()
    return shared


@pytest.fixture
def installed(place, tmp_path):
    """A function that gives the installed ``loraloop`` command in an empty folder and returns what it printed."""

    def give(*arguments: str, program: str = "loraloop") -> str:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run(
            [place / "environment" / "bin" / program, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return give


@pytest.fixture
def names(place) -> set[str]:
    with zipfile.ZipFile(next((place / "dist").glob("*.whl"))) as wheel:
        return set(wheel.namelist())


def shipped(folder: Path, suffix: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(f"*{suffix}") if path.is_file()}


def test_the_wheel_holds_configuration_assets_and_types(names):
    """Every module, configuration file and asset of the checkout, and ``py.typed``, are in the wheel."""
    package = ROOT / "src" / "loraloop"
    wanted = {f"loraloop/conf/{name}" for name in shipped(ROOT / "conf", ".yaml")}
    wanted |= {f"loraloop/conf/sweeps/{name}" for name in shipped(ROOT / "sweeps", ".yaml")}
    wanted |= {f"loraloop/{name}" for name in shipped(package, ".py")}
    wanted |= {f"hydra_plugins/{name}" for name in shipped(ROOT / "src" / "hydra_plugins", ".py")}
    wanted |= {f"loraloop/model/assets/{name}" for name in shipped(package / "model" / "assets", "")}
    wanted |= {"loraloop/py.typed"}
    assert len(wanted) > 100
    assert wanted <= names


def test_the_wheel_holds_nothing_else(names):
    """Beside the package and its plugins there is only its description with the licence: no tests, runs or caches."""
    others = {name for name in names if not name.startswith(("loraloop/", "hydra_plugins/loraloop_"))}
    assert all(name.partition("/")[0].endswith(".dist-info") for name in others)
    assert any(name.endswith("/licenses/LICENSE") for name in others)
    assert not [name for name in names if {"mlruns", "tests", "__pycache__"} & set(name.split("/"))]


def test_the_command_runs_from_the_wheel(installed, place):
    """The installed package is the wheel's, not the checkout's, by its command and by ``python -m``."""
    where = installed("-c", "import loraloop; print(loraloop.__file__)", program="python").strip()
    assert Path(where).is_relative_to(place / "environment")
    text = installed("--help")
    assert text == installed("-m", "loraloop", "--help", program="python")
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert path.stem in text


def test_the_wheels_configuration_composes(installed, tmp_path):
    """``--cfg job`` composes from the files in the wheel and leaves nothing."""
    shown = yaml.safe_load(installed("--cfg", "job", "lora=r64", "source=mixed"))
    assert shown["lora"]["r"] == 64
    assert set(shown["source"]["sources"]) == {"flips", "vault"}
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_composes_from_the_wheel(installed, tmp_path):
    """``sweeps=NAME`` and the sweeper's groups are files of the wheel, and Hydra finds the plugin that they name."""
    shown = yaml.safe_load(installed("--cfg", "hydra", "-p", "hydra.sweeper", "sweeps=rank_alpha_lr"))
    assert shown["params"]["lora.r"] == "choice(4,8,16,32,64)"
    assert shown["sampler"]["_target_"] == "optuna.samplers.TPESampler"
    module, _, name = shown["_target_"].rpartition(".")
    assert name in installed("-c", f"import {module} as plugin; print(dir(plugin))", program="python")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_works_from_the_wheel(installed, tmp_path):
    """``stage=preview`` finds the bundled model in the wheel and shows rows and estimate, and leaves nothing."""
    shown = installed("stage=preview", "source.runs=2")
    assert "44 to train on, 20 held out" in shown
    assert "65,536 parameters" in shown
    assert list(tmp_path.iterdir()) == []
