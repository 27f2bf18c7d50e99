"""Every configuration file that ships."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from loraloop import stages
from loraloop.core.build import ALLOWED, build
from loraloop.core.contract import unmet

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
STAGES = sorted((CONF / "stage").glob("*.yaml"))
OVERLAYS = {"stage", "experiment"}
"""Groups that fill the top level instead of a key of their own."""


def name(path: Path) -> str:
    return str(path.relative_to(CONF).with_suffix(""))


def group_of(path: Path) -> str:
    return str(path.parent.relative_to(CONF))


@functools.cache
def composed(path: Path) -> DictConfig:
    """The whole configuration with ``path`` as its group's choice."""
    group = group_of(path)
    override = [] if group == "." else [f"{'' if group in groups() else '+'}{group}={path.stem}"]
    if group == "policy":  # it chooses the rules among a stage's own groups
        override = ["stage=tick", f"policy={path.stem}"]
    if group.startswith("hydra/sweeper/"):
        override.insert(0, "hydra/sweeper=optuna")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", override)


@functools.cache
def plain(path: Path) -> dict[str, Any]:
    """:func:`composed` in plain containers, with what a person has to give filled in."""
    config = composed(path).copy()
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "given/by-a-person")
    return OmegaConf.to_container(config, resolve=True)


@functools.cache
def groups() -> set[str]:
    """Groups that the defaults already choose from."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text("utf8"))["defaults"]
    ours = {str(key).removeprefix("override ") for each in defaults if isinstance(each, dict) for key in each}
    return ours | {"hydra/launcher", "hydra/sweeper", "hydra/sweeper/sampler", "hydra/sweeper/pruner"}


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping that names a target, with its dotted path."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from nodes(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from nodes(value, f"{path}[{index}]")


def located(target: str) -> Any:
    module, _, cls = target.rpartition(".")
    return getattr(importlib.import_module(module), cls)


def differing(node: dict[str, Any], cls: Any, path: str) -> Iterator[str]:
    """Keys without a field and fields without a key, also of a part's groups of values."""
    fields = {field.name for field in dataclasses.fields(cls)}
    for key in sorted(fields ^ (node.keys() - {"_target_"})):
        yield f"{path}.{key} is only a {'field' if key in fields else 'key'}"
    for key in fields & node.keys():
        inner = cls.__pydantic_fields__[key].annotation
        if dataclasses.is_dataclass(inner):
            yield from differing(node[key], inner, f"{path}.{key}")


def test_the_glob_finds_the_groups():
    """The files below are found, so the tests over them test something."""
    assert len(FILES) > 40
    assert {"source", "model", "lora", "trainer", "stage", "experiment"} <= {group_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_choice_composes_and_builds(path):
    """A file composes as its group's choice; all parts are constructed and have the methods that the stages need."""
    problems: list[str] = []
    built = {key: build(node, key, ALLOWED, problems) for key, node in plain(path).items()}
    assert problems == []
    assert [problem for stage in map(stages.find, stages.STAGES) for problem in unmet(stage, built)] == []
    group = group_of(path)
    if group not in OVERLAYS | {"."} and not group.startswith("hydra"):
        assert dataclasses.is_dataclass(built[group])


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_parts_fields_are_its_keys(path):
    """In every choice the keys of a part, and of its groups of values, are exactly the fields of its class."""
    parts = nodes(plain(path))
    assert [line for where, node in parts for line in differing(node, located(node["_target_"]), where)] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_target_is_in_the_package(path):
    """Every ``_target_`` that a file names is under ``loraloop.``; of Hydra's own groups, also a plugin or Optuna's."""
    hydras = ("loraloop.", "hydra_plugins.loraloop_", "optuna.samplers.", "optuna.pruners.")
    allowed = hydras if group_of(path).startswith("hydra/") else "loraloop."
    for where, node in nodes(yaml.safe_load(path.read_text("utf8"))):
        assert node["_target_"].startswith(allowed), where


@pytest.mark.parametrize("path", [path for path in FILES if ": ???" in path.read_text("utf8")], ids=name)
def test_what_must_be_given_stays_open(path):
    """A value that a file leaves to the person (``???``) is missing when it is composed, not inherited."""
    values = yaml.safe_load(path.read_text("utf8"))
    prefix = "" if group_of(path) in OVERLAYS else f"{group_of(path)}."
    open_keys = {f"{prefix}{key}" for key, value in values.items() if value == "???"}
    assert open_keys
    assert open_keys <= OmegaConf.missing_keys(composed(path))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_choice_is_named_by_its_file(path):
    """A choice's name is lower-case letters, digits and underscores: it can be typed without quotes."""
    assert path.stem.replace("_", "").isalnum()
    assert path.stem == path.stem.lower()


def test_there_is_a_file_for_every_stage():
    """Every stage has a file of its name, and every file of the group a stage."""
    assert {path.stem for path in STAGES} == set(stages.STAGES)


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_a_stages_parameters_are_configured(path):
    """Every parameter of a stage is a key of the configuration that its file composes, and the file names it."""
    config = composed(path)
    parameters = set(inspect.signature(stages.find(path.stem)).parameters) - {"job"}
    assert parameters <= set(config)
    assert config.stage == path.stem
    assert path.read_text("utf8").splitlines()[1].startswith("# "), "its line in --help"


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=name)
def test_an_experiment_changes_the_default(path):
    """An overlay changes the configuration, and adds no key that the parts do not have."""
    before, after = composed(CONF / "config.yaml"), composed(path)
    assert after != before
    assert set(after) == set(before)


def test_one_seed_rules_every_part():
    """Setting the one seed sets it in every part that has one."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", ["seed=41", "source=mixed"]), resolve=True)
    seeds = {where: node["seed"] for where, node in nodes(config) if "seed" in node}
    assert len(seeds) >= 6
    assert set(seeds.values()) == {41}
