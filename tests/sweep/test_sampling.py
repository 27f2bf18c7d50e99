"""Samplers and pruners from configuration."""

from __future__ import annotations

import importlib.util

import optuna
import pytest

from loraloop.errors import ConfigError, MissingDependencyError
from loraloop.sweep import sampling

TPE = "optuna.samplers.TPESampler"


def test_what_is_nested_is_built():
    """A target inside a sampler's arguments is built first, within the same prefixes."""
    spec = {
        "_target_": "optuna.samplers.NSGAIISampler",
        "seed": 1,
        "crossover": {"_target_": "optuna.samplers.nsgaii.SPXCrossover"},
    }
    built = sampling.build(spec, "hydra.sweeper.sampler")
    assert isinstance(built, optuna.samplers.NSGAIISampler)
    spec["crossover"]["_target_"] = "os.system"
    with pytest.raises(ConfigError, match=r"hydra.sweeper.sampler.crossover._target_=os.system is outside optuna"):
        sampling.build(spec, "hydra.sweeper.sampler")


def test_keys_that_steer_hydra_are_no_arguments():
    """A sampler that was written for Hydra keeps its ``_recursive_`` and ``_convert_``, nested ones too."""
    spec = {
        "_target_": "optuna.samplers.NSGAIISampler",
        "_recursive_": False,
        "crossover": {"_target_": "optuna.samplers.nsgaii.SPXCrossover", "_convert_": "all"},
    }
    assert isinstance(sampling.build(spec, "hydra.sweeper.sampler"), optuna.samplers.NSGAIISampler)


@pytest.mark.parametrize("target", ["os.system", "joblib.load", "optuna.create_study", "optuna.samplers"])
def test_a_foreign_target_is_refused(target):
    """Only samplers, pruners, loraloop's own and the allowed prefixes are looked up."""
    with pytest.raises(ConfigError, match=r"add your own prefix with allow_targets=\["):
        sampling.build({"_target_": target}, "hydra.sweeper.sampler")


def test_an_allowed_prefix_is_built():
    """A person's own prefix opens the door for their class."""
    built = sampling.build({"_target_": "collections.Counter"}, "hydra.sweeper.sampler", ("collections.",))
    assert built == {}


def test_an_unknown_argument_names_the_nearest():
    """A mistyped argument is answered with its key, the nearest and all that there are."""
    with pytest.raises(ConfigError, match=r"sampler.n_startup is not a key .*did you mean n_startup_trials\?"):
        sampling.build({"_target_": TPE, "n_startup": 5}, "hydra.sweeper.sampler")


def test_a_wrong_argument_is_one_sentence():
    """What Optuna itself refuses is passed on with the key."""
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.sampler: .*qmc_type"):
        sampling.sampler({"_target_": sampling.QMC, "qmc_type": "x"}, 0, 0)


@pytest.mark.parametrize(("target", "package"), sorted(sampling.NEEDS.items()))
def test_a_missing_package_is_found_before_it_is_needed(target, package, monkeypatch):
    """Optuna imports these packages in the middle of a sweep; without them the sampler is refused at once."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(MissingDependencyError, match=rf"needs {package}, .* pip install {package}$"):
        sampling.sampler({"_target_": target}, 0, 0)


def test_a_proposals_seed_depends_on_seed_and_place_alone():
    """Equal seed and place draw equally; another seed or place draws otherwise."""
    spec = {"_target_": "optuna.samplers.RandomSampler", "seed": 5}

    def draw(seed, ordinal):
        study = optuna.create_study(sampler=sampling.sampler(spec, seed, ordinal))
        return study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}).params["x"]

    assert draw(5, 2) == draw(5, 2)
    assert len({draw(5, 2), draw(5, 3), draw(6, 2), draw(2, 5)}) == 4
