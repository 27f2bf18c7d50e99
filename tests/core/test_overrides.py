"""Overrides as text that Hydra's grammar and a shell read back."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from loraloop.core import overrides

TEXT = st.text(
    st.one_of(st.sampled_from(" '\"\\${}[](),=#~&;:!?*|<>éЖ1.-+"), st.characters(exclude_categories=["Cs", "Cc"]))
)


def read(override):
    """The value that Hydra and OmegaConf make of an override."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    return OmegaConf.to_container(OmegaConf.create({"value": parsed.value()}), resolve=True)["value"]


@given(TEXT)
def test_a_quoted_value_is_read_as_it_was_written(text):
    """Whatever characters a value holds, Hydra reads the override that `assign` writes as that text."""
    assert read(overrides.assign("source.path", text)) == text


@given(TEXT)
def test_a_shell_gives_an_override_back(text):
    """A shell splits the printed command into the very overrides that it was made of."""
    given = [overrides.assign("source.path", text), "+experiment=ocr_specialist", "~tracker"]
    assert shlex.split(overrides.command(given)) == ["loraloop", *given]


@pytest.mark.parametrize("text", ["1", "-0.5", "1e3", "nan", "true", "Null"])
def test_a_text_that_looks_like_another_type_stays_text(text):
    """Digits, truth values and null are read as text where text was meant."""
    assert read(overrides.assign("key", text)) == text


def test_a_plain_path_needs_no_quotes():
    """A path of letters, digits and plain signs is written as it is."""
    assert overrides.shell(overrides.assign("source.path", "my/data-2.jsonl")) == "source.path=my/data-2.jsonl"


@pytest.mark.parametrize(
    ("argument", "expanded"),
    [
        ("source.path=~/my data.csv", 'source.path="/home/of a user/my data.csv"'),
        ("+hydra.run.dir=~/runs", '+hydra.run.dir="/home/of a user/runs"'),
        ("~source", "~source"),
        ("source.path=a~/b", "source.path=a~/b"),
        ("source.path=~nobody/b", "source.path=~nobody/b"),
        ("source.path=~/a,~/b", "source.path=~/a,~/b"),
        ("--config-dir", "--config-dir"),
        ("server.roles.tickets=tickets@champion", "++server.roles.tickets=tickets@champion"),
        ("server.names.tickets=my-model", "++server.names.tickets=my-model"),
        ("server.port=0", "server.port=0"),
    ],
)
def test_a_home_folder_and_a_key_of_an_open_map_are_accepted(argument, expanded, monkeypatch):
    """`~/` is the home folder where a value begins with it; roles, names and columns take keys of a person's own."""
    monkeypatch.setenv("HOME", "/home/of a user")
    assert overrides.accept([argument]) == [expanded]


def test_roles_given_as_a_whole_replace_the_shipped_ones():
    """A map of roles or names is taken out and added again, which Hydra would otherwise merge."""
    given = ["lora=r8", "server.roles={tickets: support@champion}", "server.names={}"]
    assert overrides.accept(given) == ["lora=r8", "~server.roles", f"+{given[1]}", "~server.names", "+server.names={}"]


def test_a_resumed_run_is_found_from_any_folder(tmp_path, monkeypatch):
    """The printed command begins in the run's working folder and names one run, whatever these are called."""
    folder = tmp_path / "José's runs (1)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    line = overrides.resume_command(["lora=r8", "resume=/old", "++resume=/older"], Path("/new's"))
    assert shlex.split(line) == ["cd", str(folder), "&&", "loraloop", "lora=r8", 'resume="/new\'s"']


def test_the_command_that_goes_on_names_the_version_that_was_meant(tmp_path):
    """An alias in ``continue_from`` gives way to the version that it stood for, however it was given."""
    for typed in (["continue_from=@champion"], ["++continue_from=@champion"], []):
        line = overrides.resume_command(["lora=r8", *typed], tmp_path, "models:/vaults/3")
        assert line.endswith(f"loraloop lora=r8 resume={tmp_path} continue_from=models:/vaults/3")


@given(TEXT)
def test_a_sentence_arrives_as_it_was_typed(text):
    """Any printable text given to `comment=` is one text, in one run, and the override made of it is accepted again."""
    assume(text != "null" and not overrides.QUOTED.fullmatch(text))
    once = overrides.accept([f"comment={text}"])
    (parsed,) = OverridesParser.create().parse_overrides(once)
    assert not parsed.is_sweep_override()
    assert read(once[0]) == text
    assert overrides.accept(once) == once


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ('comment="wrong, very"', "wrong, very"),
        ("reason='it\\'s late'", "it's late"),
        ("correction=null", None),
        ("comment=", ""),
        ("comment=5", "5"),
        ("++correction=a=b, {c: [d]} (e)", "a=b, {c: [d]} (e)"),
        ("source.instruction=Which queue, please?", "Which queue, please?"),
        ("comment=~/x", "~/x"),
    ],
)
def test_a_sentence_in_hydras_quotes_keeps_its_meaning(argument, value):
    """Quotes around the whole text are Hydra's, null is no text, and every key of a sentence is taken as text."""
    (accepted,) = overrides.accept([argument])
    assert read(accepted) == value


def test_every_key_of_a_sentence_is_one_of_the_configuration():
    """The keys that are declared as sentences are keys of stages in the shipped YAML."""
    stages = [OmegaConf.load(file) for file in (Path(__file__).parents[2] / "conf" / "stage").glob("*.yaml")]
    for key in ("comment", "correction", "reason"):
        assert any(key in stage for stage in stages)
        assert overrides.FREE_TEXT.fullmatch(f"{key}=a b")
