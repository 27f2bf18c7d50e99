"""The policy: one YAML from rating to rollback, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from loraloop.__main__ import CONF
from loraloop.canary.plain import Plain as PlainCanary
from loraloop.canary.sequential import Sequential
from loraloop.core.build import ALLOWED, build
from loraloop.policy import Mix, Policy
from loraloop.trigger.plain import Plain

RATING = st.floats(1.1, 4.9)


def composed(*overrides: str) -> tuple[Policy | None, list[str]]:
    """The policy of ``stage=tick``, or what is wrong with it."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", ["stage=tick", *overrides]), resolve=True)
    problems: list[str] = []
    return build(config["policy"], "policy", ALLOWED, problems), problems


def test_the_default_policy_is_the_sound_rules():
    """Without a choice the policy is named default, and trigger and canary are the sequential rules."""
    policy, problems = composed()
    assert problems == []
    assert (policy.name, policy.roles, policy.every) == ("default", ("validator",), "4h")
    assert isinstance(policy.canary, Sequential)


def test_the_seed_policy_is_the_plain_rules_without_their_contradiction():
    """``policy=seed`` takes both plain rules and promotes only at a rating that does not trigger."""
    policy, problems = composed("policy=seed")
    assert problems == []
    assert (policy.name, type(policy.trigger), type(policy.canary)) == ("seed", Plain, PlainCanary)
    assert policy.canary.least_rating >= policy.trigger.threshold


def test_the_command_line_wins_over_the_policy():
    """A rule that is chosen on the command line takes the place of the policy's."""
    policy, problems = composed("trigger=plain")
    assert problems == []
    assert (type(policy.trigger), type(policy.canary)) == (Plain, Sequential)


def test_a_promotion_that_would_trigger_at_once_is_refused_with_the_way_out():
    """A canary that promotes below the trigger's threshold is refused: rule, both values, and what to write."""
    _, (problem,) = composed("policy=seed", "canary.min_rating=3.5")
    assert problem.startswith("policy: canary promotes from 3.5 stars on and trigger looks for an average below 3.8")
    assert "canary.min_rating=3.8" in problem


@given(least=RATING, threshold=RATING)
def test_exactly_the_contradictions_are_refused(least, threshold):
    """A policy is refused exactly if its canary promotes below the rating that its trigger looks for."""
    parts = {"trigger": Plain(threshold=threshold), "canary": PlainCanary(min_rating=least)}
    if least < threshold:
        with pytest.raises(ValidationError, match="triggers at once"):
            Policy(roles=("validator",), **parts)
    else:
        assert Policy(roles=("validator",), **parts).canary.least_rating == least


@given(corrective=st.floats(0.01, 1), earlier=st.floats(0, 0.99))
def test_shares_that_do_not_add_up_are_refused(corrective, earlier):
    """Shares of the training set are refused exactly if they do not add up to 1."""
    if abs(corrective + earlier - 1) > 1e-6:
        with pytest.raises(ValidationError, match="shares add up to 1"):
            Mix(corrective=corrective, earlier=earlier)
    else:
        assert Mix(corrective=corrective, earlier=earlier).rows > 0


def test_shares_on_the_command_line_get_the_way_out():
    """The error about shares names both values and the one that would fit."""
    _, (problem,) = composed("policy.mix.corrective=0.3")
    assert problem == (
        "policy.mix: corrective=0.3 and earlier=0.8 add up to 1.1, and shares add up to 1: write policy.mix.earlier=0.7"
    )


def test_a_role_stands_once():
    """A role that is named twice is refused."""
    _, (problem,) = composed("policy.roles=[validator,validator]")
    assert "validator is there twice" in problem


def test_spans_are_written_with_their_unit():
    """A cooldown without a unit is refused with an example of one."""
    _, (problem,) = composed("policy.cooldown=24hours")
    assert problem == "policy.cooldown='24hours': write a number above 0 and its unit, s, m, h or d, such as 30m or 4h"


def test_a_rule_is_blamed_by_the_key_that_changes_it(desk):
    """The rules stand in the policy, and are changed by ``canary.*`` and ``trigger.*``: so an error names those."""
    seen = desk.attempt("stage=tick", "canary.share=1.5", "trigger.alpha=7")
    assert seen.code == 2
    assert "canary.share=1.5: " in seen.err
    assert "trigger.alpha=7: " in seen.err
    assert "policy." not in seen.err
