"""How the packed launcher makes the configurations of its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from hydra_plugins.loraloop_launcher import packed

CONF = Path(__file__).parents[2] / "conf"
FIRST = ["lora.r=4", "trainer.learning_rate=1e-3", "source.tasks=[count]", "+hydra.job.env_set.TRIAL=abc"]
OTHERS = ["lora.r=32", "trainer.learning_rate=0.005", "source.tasks=[count,parity]", "+hydra.job.env_set.TRIAL=def"]


@pytest.fixture(scope="module")
def loader():
    """Hydra's loader of the packaged configuration."""
    return ConfigLoaderImpl(config_search_path=create_config_search_path(str(CONF)))


@pytest.fixture(scope="module")
def master(loader):
    """The configuration of a multirun."""
    return loader.load_configuration("config", ["hydra.sweep.dir=out"], RunMode.MULTIRUN)


def read(overrides):
    return OverridesParser.create().parse_overrides(overrides)


def plain(config):
    return OmegaConf.to_container(config, resolve=False)


def test_a_job_with_other_values_has_the_configuration_that_hydra_composes(loader, master):
    """Values, Hydra's lists of overrides and the folder's name are those of a composition from the files."""
    first = loader.load_sweep_config(master, FIRST)
    kept = plain(first)
    made = packed._changed(first, read(FIRST), read(OTHERS))
    assert plain(made) == plain(loader.load_sweep_config(master, OTHERS))
    assert plain(first) == kept


@pytest.mark.parametrize("other", [["lora=r8", *FIRST[1:]], FIRST[1:], ["~lora.r", *FIRST[1:]]])
def test_what_changes_more_than_values_is_composed(loader, master, other):
    """Another choice of a group, other keys or a deleted one are left to Hydra."""
    assert packed._changed(loader.load_sweep_config(master, FIRST), read(FIRST), read(other)) is None
