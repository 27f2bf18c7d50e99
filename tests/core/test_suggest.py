"""Sentences for mistyped overrides."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core import suggest

CONF = Path(__file__).parents[2] / "conf"
KEYS = ["seed", "lora", "lora._target_", "lora.r", "lora.dropout", "lora.targets", "trainer", "trainer.epochs"]
MISSING = Exception("In 'config': Could not find 'lora/r9'\n\nAvailable options")
STRUCT = Exception("Could not override 'x'.\nTo append to your config use +x\nKey 'x' is not in struct")


@pytest.mark.parametrize(
    ("word", "meant"), [("droput", "dropout"), ("Dropout", "dropout"), ("epoch", "epochs"), ("zzz", None), ("", None)]
)
def test_the_nearest_name_is_suggested(word, meant):
    """A word that resembles a name suggests it, one that resembles none suggests nothing."""
    assert suggest.nearest(word, ["dropout", "epochs", "r"]) == (f" (did you mean {meant}?)" if meant else "")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("trainer.lr", "learning_rate"),
        ("trainer.wd", "weight_decay"),
        ("trainer.bs", "batch_size"),
        ("trainer.batch", "batch_size"),
        ("trainer.ga", "accumulation"),
        ("trainer.grad_accum", "accumulation"),
        ("trainer.accum", "accumulation"),
        ("trainer.gradient_accumulation_steps", "accumulation"),
        ("trainer.eps", "epochs"),
        ("trainer.num_train_epochs", "epochs"),
        ("trainer.clip", "max_grad_norm"),
        ("trainer.max_seq_length", "max_length"),
        ("trainer.lr_scheduler_type", "schedule"),
        ("trainer.ckpt", "gradient_checkpointing"),
        ("trainer.lerning_rate", "learning_rate"),
        ("lora.rank", "r"),
        ("lora.lora_alpha", "alpha"),
        ("lora.target_modules", "targets"),
        ("lora.drop", "dropout"),
        ("lora.dora", "use_dora"),
        ("model.torch_dtype", "dtype"),
        ("model.quant", "quantization"),
        ("model.attn_implementation", "attention"),
        ("dataset.val", "validation_share"),
        ("evaluation.max_tokens", "max_new_tokens"),
        ("tracker.experiment_name", "experiment"),
        ("tracker.foo", None),
    ],
)
def test_the_fields_names_lead_to_our_keys(written, meant):
    """Abbreviations, initials and other libraries' names of a setting suggest the key of the shipped configuration."""
    parent = written.partition(".")[0]
    sentence = suggest.sentence(f"{written}=1", STRUCT, [CONF], shipped())
    told = re.search(r" \(did you mean (.+?)\?\)", sentence)
    assert (told and told[1]) == (meant and f"{parent}.{meant}"), sentence


def shipped():
    """Every key of the default configuration."""
    files = {"trainer": "sft", "lora": "r16", "model": "hub", "dataset": "default", "evaluation": "default"}
    files |= {"tracker": "mlflow"}
    nodes = {group: yaml.safe_load((CONF / group / f"{name}.yaml").read_text()) for group, name in files.items()}
    return [*nodes, *(f"{group}.{key}" for group, node in nodes.items() for key in node)]


def test_an_unknown_choice_lists_the_choices():
    """A choice that a group does not have names the nearest one and all there are."""
    sentence = suggest.sentence("lora=r166", MISSING, [CONF], KEYS)
    assert sentence.startswith("lora=r166: there is no lora named 'r166' (did you mean r16?); there are ")
    assert sentence.endswith(", ".join(sorted(file.stem for file in (CONF / "lora").glob("*.yaml"))))


def test_the_choices_of_every_folder_are_listed(tmp_path):
    """Choices of a person's own folder are listed with the package's, each once."""
    (tmp_path / "lora").mkdir()
    for name in ("r3", "r8"):
        (tmp_path / "lora" / f"{name}.yaml").touch()
    listed = suggest.sentence("lora=x", MISSING, [CONF, tmp_path], KEYS).partition("there are ")[2].split(", ")
    assert listed == sorted({"r3", *suggest.options(CONF, "lora")})


def test_an_unknown_key_lists_its_neighbours():
    """A key that a part does not have names the nearest one and the part's other keys, without ``_target_``."""
    assert suggest.sentence("lora.droput=1", STRUCT, [CONF], KEYS) == (
        "lora.droput=1: there is no key lora.droput (did you mean lora.dropout?); lora has r, dropout, targets"
    )


def test_an_unknown_group_lists_the_top_level():
    """A name that is neither group nor key names the nearest of the top level, and all of it."""
    assert suggest.sentence("loar=r8", STRUCT, [CONF], KEYS) == (
        "loar=r8: there is no key loar (did you mean lora?); the top level has seed, lora, trainer"
    )


def test_several_values_are_a_multirun_or_a_list():
    """Comma-separated values without ``-m`` are told both things that they may mean."""
    cause = Exception("Ambiguous value for argument 'lora.targets=a,b'\n1. To use it as a list ...")
    assert suggest.sentence("lora.targets=a,b", cause, [CONF], KEYS) == (
        "lora.targets=a,b: several values are a run each with -m (--multirun); one list of them is lora.targets=[a,b], "
        "one text 'lora.targets=\"a,b\"'"
    )


@pytest.mark.parametrize("sign", ["+", "++", "~"])
def test_signs_of_the_override_grammar_are_not_part_of_the_name(sign):
    """An added, forced or deleted choice is looked up under its group's name."""
    assert "there is no lora named 'r9'" in suggest.sentence(f"{sign}lora=r9", MISSING, [CONF], KEYS)


@given(
    override=st.text(min_size=1, max_size=30).filter(lambda text: "/" not in text and "\0" not in text),
    message=st.text(max_size=60),
    keys=st.lists(st.text(alphabet="abc._", max_size=8), max_size=8),
)
def test_every_problem_has_a_sentence(override, message, keys):
    """Whatever was written and whatever Hydra said, the sentence begins with what was written and says something."""
    sentence = suggest.sentence(override, Exception(message), [CONF], keys)
    assert sentence.startswith(f"{override}: ")
    assert len(sentence) > len(override) + 2


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n\n  the first \nthe second"), "the first"),
        (ValueError(""), "ValueError"),
        (KeyError("k"), "'k'"),
    ],
)
def test_the_first_line_that_says_something(error, line):
    """Of a long message the first line with words is kept; an error without a message gives its class."""
    assert suggest.first_line(error) == line


def test_options_are_the_files_of_a_group():
    """A group's choices are its YAML files, sorted, without their suffix."""
    assert suggest.options(CONF, "tracker") == ["mlflow", "none"]
    assert suggest.options(CONF, "no_such_group") == []


def refused(override):
    """What is said of an override that Hydra's parser refuses, or nothing where it reads it."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException as cause:
        return suggest.sentence(override, cause, [CONF], KEYS)
    return None


@pytest.mark.parametrize(
    "path",
    [
        "a=b.jsonl",
        "a#b.jsonl",
        "a (1).jsonl",
        "it's.jsonl",
        "[1].jsonl",
        "Jos\u00e9.jsonl",
        "{a}.jsonl",
        'a"b.jsonl',
        "a;b",
    ],
)
def test_a_value_with_a_character_of_the_grammar_is_shown_quoted(path):
    """The line to type instead is in the answer, and means the path that was meant."""
    said = refused(f"source.path={path}")
    (line,) = shlex.split(re.search(r"quote it like this: (.*?)(; or close the .*)?$", said)[1])
    assert OverridesParser.create().parse_override(line).value() == path


@given(st.text(st.sampled_from("ab/.~=#'\"()[]{}\u00e9&;!\\ "), min_size=1, max_size=12))
def test_no_raw_text_of_the_parser_reaches_a_person(value):
    """Whatever a value is made of, the answer holds no word of the grammar's parser."""
    override = f"source.path={value}"
    said = refused(override) or ""
    assert not re.search("Lexer|mismatched|viable|extraneous|recognition|expecting|EOF", said.removeprefix(override))


def test_a_value_that_is_not_closed_is_told_so():
    """A value that begins a list or a call without its end may also be closed."""
    assert refused("lora.targets=[q_proj,v_proj").endswith("; or close the [ that it begins with")
    assert refused("lora.r=choice(8,16").endswith("; or close the ( that it begins with")


def test_a_path_with_its_brackets_closed_is_not_told_to_close_them():
    """A file name such as `a(1).jsonl` begins no call and needs quotes alone; a closed list has nothing to close."""
    for path in ("a(1).jsonl", "a(1.jsonl", "[a]b.jsonl"):
        assert "or close" not in refused(f"source.path={path}")


def test_an_overlay_is_added_with_a_plus_sign():
    """A group that the configuration does not hold yet is told with the sign that adds it."""
    said = suggest.sentence("experiment=ocr_specialist", STRUCT, [CONF], KEYS)
    assert said == "experiment=ocr_specialist: experiment is added to what there is: write +experiment=ocr_specialist"


def test_a_key_without_its_group_leads_to_the_group_that_has_it():
    """A bare key is told with the group that holds a key of that name."""
    assert suggest.sentence("epochs=1", STRUCT, [CONF], KEYS).endswith("no key epochs (did you mean trainer.epochs?)")
