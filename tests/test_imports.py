"""What the command line may load before it works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch", "transformers", "trl", "peft", "mlflow", "optuna", "datasets", "cv2", "pandas", "pyarrow",
    "matplotlib", "bitsandbytes", "sacrebleu", "PIL", "scipy", "sklearn", "accelerate", "tokenizers", "ray",
    "detect_secrets", "apprise",
}  # fmt: skip
# _preload imports the libraries that isolated jobs are forked with, in a process of its own.
PARTS = sorted(
    path
    for path in (ROOT / "src").rglob("*.py")
    if path.name not in {"__main__.py", "_preload.py"}
)  # fmt: skip


def loaded(code: str, *arguments: str) -> set[str]:
    """Top-level names of the modules loaded by ``code`` in a fresh interpreter."""
    names = "sorted({m.split('.')[0] for m in sys.modules})"
    script = f"import sys\n{code}\nimport json\nprint(json.dumps({names}), file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
    )
    return set(json.loads(result.stderr.strip().splitlines()[-1]))


def test_help_loads_only_the_standard_library():
    """``--help`` is answered before Hydra, pydantic or any library is imported."""
    modules = loaded("sys.argv = ['loraloop', '--help']\nfrom loraloop.__main__ import main\nmain()")
    assert not modules & (HEAVY | {"hydra", "omegaconf", "pydantic", "numpy", "rich"})


def test_cfg_job_loads_no_heavy_library():
    """``--cfg job`` composes with Hydra and loads none of the machine-learning libraries."""
    modules = loaded(
        "sys.argv = ['loraloop', '--cfg', 'job']\n"
        "from loraloop.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert "hydra" in modules
    assert not modules & HEAVY


def test_importing_every_module_loads_no_heavy_library():
    """Every module of the package can be imported without its heavy library: they load where they work."""
    names = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__") for path in PARTS]
    modules = loaded("import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)", *names)
    assert not modules & HEAVY


def test_hydras_scan_of_the_sweeper_is_cheap():
    """Hydra imports the sweeper on every command: it loads neither Optuna nor any part of loraloop."""
    modules = loaded("import hydra_plugins.loraloop_sweeper.optuna_sweeper")
    assert "hydra" in modules
    assert not modules & (HEAVY | {"loraloop", "pydantic", "sqlalchemy", "numpy", "rich"})


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_stage_and_group(flag):
    """``--help`` lists every stage, every group with its choices, and five examples."""
    result = subprocess.run(
        [sys.executable, "-m", "loraloop", flag], capture_output=True, text=True, check=True, cwd=ROOT
    )
    for file in (ROOT / "conf").glob("*/*.yaml"):
        assert file.stem in result.stdout, file
    examples = result.stdout.partition("\nexamples\n")[2].partition("\n\n")[0]
    assert len(examples.splitlines()) == 5
