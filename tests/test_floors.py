"""The import rules of the house, read from the source files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "loraloop"
FLOORS = (
    {"", "records", "errors", "protocols"},
    {"core"},
    {
        "source", "ocr", "dataset", "model", "lora", "trainer", "evaluation", "gate", "tracker", "registry", "publish",
        "sweep", "serve", "feedback", "trigger", "canary", "policy", "loop", "monitor", "simulation", "alerts",
        "client", "tracing", "judge", "runtime", "compress", "combine",
    },
    {"workflows"},
    {"stages"},
    {"cli", "__main__", "python"},
)  # fmt: skip
PARTS = 2
KNOW_HYDRA = {"loraloop.__main__", "loraloop.python", "loraloop.cli.explain"}
MODULES = sorted(ROOT.rglob("*.py"))
PLUGINS = sorted((ROOT.parent / "hydra_plugins").rglob("*.py"))


def unit(module: str) -> str:
    """The floor's unit that a dotted module belongs to: its first name below ``loraloop``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def name_of(path: Path) -> str:
    return ".".join(["loraloop", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


def floor(name: str) -> int:
    return next(number for number, units in enumerate(FLOORS) if name in units)


def imports(path: Path) -> set[str]:
    """Every loraloop module that a file imports: inside functions and for its types too."""
    tree = ast.parse(path.read_text("utf8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "loraloop":
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {
                m if (ROOT / Path(*m.split(".")[1:])).with_suffix(".py").exists() else node.module for m in modules
            }
            found |= {m for m in modules if (ROOT / Path(*m.split(".")[1:])).is_dir()}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "loraloop"}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_lower_floors_or_its_own_package(path):
    """A module imports its own package and lower floors, never another part and never upwards."""
    own = unit(name_of(path))
    for module in imports(path):
        other = unit(module)
        sibling = floor(other) == floor(own) and floor(own) != PARTS
        assert other == own or floor(other) < floor(own) or sibling, (
            f"{name_of(path)} (floor {floor(own)}) imports {module} (floor {floor(other)})"
        )


def test_there_is_no_import_cycle():
    """No chain of imports, also none inside functions or for types alone, leads back to where it began."""
    graph = {name_of(path): {m for m in imports(path) if m != name_of(path)} for path in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module in done:
            return
        for other in sorted(graph.get(module, ())):
            if not module.startswith(f"{other}."):
                visit(other, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def imported(path: Path) -> set[str]:
    """The first name of every import of a file, inside functions and for its types too."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_only_the_command_line_knows_hydra():
    """Hydra and OmegaConf are imported by the command line alone, and by Hydra's plugins beside it."""
    knowing = {name_of(path) for path in MODULES if imported(path) & {"hydra", "omegaconf"}}
    assert knowing == KNOW_HYDRA
    assert PLUGINS


def test_the_package_stands_without_its_plugins():
    """No module of loraloop imports a plugin: they are shells over it."""
    assert [name_of(path) for path in MODULES if "hydra_plugins" in imported(path)] == []


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_a_plugin_uses_no_library_of_the_parts(path):
    """A plugin imports Hydra, loraloop and the standard library; what a part is about stays in the part."""
    assert not imported(path) & {"optuna", "transformers", "peft", "trl", "mlflow", "datasets"}


def test_floors_0_and_1_need_little():
    """Records and core load the standard library, pydantic, orjson and numpy alone; the rest loads where it works."""
    import subprocess
    import sys

    low = [name_of(path) for path in MODULES if floor(unit(name_of(path))) < PARTS]
    code = (
        "import sys; before = set(sys.modules)\n"
        + "\n".join(f"import {name}" for name in low)
        + "\nnew = {m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)"
        + "\nprint(*sorted(new))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = {"loraloop", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    # The standard library's list leaves out its own per-platform module of build settings.
    others = {name for name in result.stdout.split() if not name.startswith("_sysconfigdata")}
    assert others <= allowed | {"orjson", "numpy"}
