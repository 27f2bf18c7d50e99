"""From a plain configuration to a stage's parts."""

from __future__ import annotations

import sys
import textwrap

import pytest

from loraloop import stages
from loraloop.cli import prepare
from loraloop.errors import ConfigError
from loraloop.gate.gate import Gate
from loraloop.lora import Lora
from loraloop.source.files import Files
from loraloop.source.flips import Flips
from loraloop.source.mixed import Mixed

LORA = {"_target_": "loraloop.lora.Lora", "r": 8}
GATE = {"_target_": "loraloop.gate.gate.Gate"}
FLIPS = {"_target_": "loraloop.source.flips.Flips", "runs": 2}
PROBE = """
    from pathlib import Path

    Path({log!r}).open("a").write("imported ")

    class Part:
        def __init__(self, size=1):
            Path({log!r}).open("a").write("built ")

    def check():
        pass
"""


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """A function that gives a configuration to a stage of its own, which returns the job and its parts."""

    def probe(job, source, lora, gate, words=None):
        return {"job": job, "source": source, "lora": lora, "gate": gate, "words": words}

    monkeypatch.setitem(stages.STAGES, "probe", probe)

    def run(choices=None, overrides=(), **config):
        whole = {"stage": "probe", "seed": 7, "source": FLIPS, "lora": LORA, "gate": GATE} | config
        return prepare.prepare(whole, tmp_path, choices or {}, overrides)()

    return run


@pytest.fixture
def intruder(tmp_path, monkeypatch):
    """A module outside the package that leaves a trace when it is imported and when its part is built."""
    log = tmp_path / "trace"
    (tmp_path / "intruder.py").write_text(textwrap.dedent(PROBE).format(log=str(log)))
    monkeypatch.syspath_prepend(tmp_path)
    yield log
    sys.modules.pop("intruder", None)


def problems(call, **config):
    """The problems that a configuration is refused with."""
    with pytest.raises(ConfigError) as error:
        call(**config)
    return error.value.problems


def test_a_stage_gets_the_parts_that_its_parameters_name(execute):
    """Each parameter of a stage is built from the configuration's node of its name; other nodes are left alone."""
    made = execute(ocr={"_target_": "nowhere.Part"}, words=["a", {"b": 1}])
    assert made["lora"] == Lora(r=8)
    assert made["source"] == Flips(runs=2)
    assert made["gate"] == Gate()
    assert made["words"] == ["a", {"b": 1}]


def test_the_job_knows_what_it_was_asked(execute, tmp_path):
    """The job carries seed, folder, overrides, the stage's own configuration and the choices of its own groups."""
    choices = {"lora": "r8", "ocr": "tesseract_psm6", "experiment": "action_specialist"}
    job = execute(choices, ("lora.r=8",), ocr={})["job"]
    assert (job.stage, job.seed, job.output, job.overrides) == ("probe", 7, tmp_path, ("lora.r=8",))
    assert job.config["lora"] == LORA
    assert "ocr" not in job.config
    assert job.choices == {"lora": "r8", "experiment": "action_specialist"}


def test_every_problem_of_every_part_is_shown_at_once(execute, tmp_path):
    """Wrong types, bounds, unknown keys, rules across keys and failed checks of all parts come as one error."""
    found = problems(
        execute,
        source={"_target_": "loraloop.source.files.Files", "path": str(tmp_path / "nothing.csv")},
        lora=LORA | {"r": "many", "dropout": 2, "droput": 0.1},
        gate=GATE | {"must_beat": [], "min_rows": 0},
    )
    assert len(found) == 6
    assert found[0].startswith("lora.r='many': ")
    assert found[1].startswith("lora.dropout=2: ")
    assert found[2].startswith("lora.droput is not a key of lora (did you mean dropout?); it has r, alpha_over_r, ")
    assert {problem.partition("=")[0] for problem in found[3:5]} == {"gate.must_beat", "gate.min_rows"}
    assert found[5].startswith("source")
    assert "nothing.csv" in found[5]


def test_a_rule_across_keys_is_named_by_its_part(execute):
    """A rule over several keys of a part begins with the part's path and says the rule without a library's prefix."""
    (problem,) = problems(execute, lora=LORA | {"use_dora": True, "init": "pissa", "bias": "everything"})[:1]
    assert problem.startswith("lora.bias='everything': ")
    mixed = {"_target_": "loraloop.source.mixed.Mixed", "sources": {"flips": FLIPS}, "weights": {"flip": 1.0}}
    (problem,) = problems(execute, source=mixed)
    assert problem.startswith("source: weights has flip and sources has flips")


def test_parts_within_parts_are_built(execute, tmp_path):
    """A part below a part, also in a mapping, is built before it, from its own target."""
    (tmp_path / "rows.csv").write_text("input,output\na,b\n")
    files = {"_target_": "loraloop.source.files.Files", "path": str(tmp_path / "rows.csv")}
    source = {
        "_target_": "loraloop.source.mixed.Mixed",
        "sources": {"flips": FLIPS, "own": files},
        "weights": {"flips": 1.0, "own": 1.0},
    }
    made = execute(source=source)["source"]
    assert isinstance(made, Mixed)
    assert made.sources["flips"] == Flips(runs=2)
    assert isinstance(made.sources["own"], Files)


def test_problems_within_parts_have_their_whole_path(execute, tmp_path):
    """A problem of a part below a part is named by the dotted key that a person would write, built or checked."""
    source = {
        "_target_": "loraloop.source.mixed.Mixed",
        "sources": {"flips": FLIPS | {"p": 2}, "own": {"_target_": "loraloop.source.files.Nothing"}},
        "weights": {"flips": 1.0, "own": 1.0},
    }
    p, target = problems(execute, source=source)
    assert p.startswith("source.sources.flips.p=2: ")
    assert target.startswith("source.sources.own._target_=loraloop.source.files.Nothing cannot be imported")
    missing = {"_target_": "loraloop.source.files.Files", "path": str(tmp_path / "nothing.csv")}
    (checked,) = problems(
        execute, source=source | {"sources": {"flips": FLIPS, "own": missing}, "weights": {"flips": 1.0, "own": 1.0}}
    )
    assert checked.startswith("source.sources.own.path=")


def test_keys_of_a_group_of_values_have_their_own_names(execute):
    """An unknown key of a group of values within a part suggests that group's keys, not the part's."""
    vault = {"_target_": "loraloop.source.vault.Vault", "augment": {"copys": 2}}
    (problem,) = problems(execute, source=vault)
    assert problem == (
        "source.augment.copys is not a key of source.augment (did you mean copies?); "
        "it has copies, max_rotation_degrees, noise"
    )


def test_a_list_names_its_item(execute):
    """A problem within a list is named by the item's index."""
    (problem,) = problems(execute, words=["fine", {"_target_": "loraloop.lora.Lora", "r": -1}])
    assert problem.startswith("words[1].r=-1: ")


@pytest.mark.parametrize("target", ["intruder.Part", "os.system", "builtins.eval", "loraloopish.Part", "Part", ""])
def test_a_target_outside_the_package_is_refused_untouched(execute, intruder, target):
    """A target outside ``loraloop.`` is refused with the setting that allows it, and not so much as imported."""
    (problem,) = problems(execute, source={"_target_": target, "size": 3})
    assert problem.startswith(f"source._target_={target} is outside loraloop.: only these prefixes are built")
    prefix, dot, _ = target.partition(".")
    assert (f"allow_targets=[{prefix}.]" if dot else "write MODULE.CLASS") in problem
    assert not intruder.exists()


@pytest.mark.parametrize(
    "target",
    ["loraloop.core.atomic.os.system", "loraloop.core.atomic.tempfile", "loraloop.core.extras.importlib.import_module"],
)
def test_a_target_does_not_reach_through_the_package(execute, target):
    """What a module of the package imports for itself is not a target."""
    (problem,) = problems(execute, source={"_target_": target})
    assert problem.startswith("source")


def test_nothing_below_a_refused_target_is_used(execute, intruder):
    """A refused target inside a part stops that part; and no part is made of parts that were refused."""
    inside = {"_target_": "loraloop.source.mixed.Mixed", "sources": {"x": {"_target_": "intruder.Part"}}}
    assert len(problems(execute, source=inside | {"weights": {"x": 1.0}})) == 1
    outside = {"_target_": "intruder.Part", "size": LORA | {"r": -1}}
    assert len(problems(execute, source=outside)) == 2
    assert not intruder.exists()
    assert len(problems(execute, source=outside, allow_targets=["intruder."])) == 1
    assert intruder.read_text() == "imported "


def test_an_allowed_prefix_is_built(execute, intruder):
    """With its prefix in ``allow_targets`` a person's own class is built like any other part."""
    made = execute(source={"_target_": "intruder.Part", "size": 3}, allow_targets=["intruder."])["source"]
    assert type(made).__name__ == "Part"
    assert intruder.read_text() == "imported built "


def test_a_wrong_argument_of_ones_own_class_is_a_problem(execute, intruder):
    """A key that a person's own class does not take is a problem of that part, not a traceback."""
    (problem,) = problems(execute, source={"_target_": "intruder.Part", "sise": 3}, allow_targets=["intruder."])
    assert problem == "source.sise is not a key of source (did you mean size?); it has size"


@pytest.mark.parametrize("target", ["loraloop.nowhere.Part", "loraloop.lora.Nothing", "loraloop."])
def test_a_target_that_is_not_there_is_a_problem(execute, target):
    """A target in the package that does not exist is named, with the reason."""
    (problem,) = problems(execute, lora={"_target_": target})
    assert problem.startswith(f"lora._target_={target} cannot be imported: ")


def test_an_unknown_stage_lists_the_stages(execute):
    """A stage that does not exist names the nearest one and all there are."""
    (problem,) = problems(execute, stage="experimnt")
    assert problem.startswith("stage=experimnt: no such stage (did you mean experiment?); there are experiment, ")


def test_a_refused_configuration_does_not_reach_the_stage(monkeypatch, tmp_path):
    """The stage is not called when any part has a problem."""
    monkeypatch.setitem(stages.STAGES, "probe", lambda job, lora: pytest.fail("the stage ran"))
    with pytest.raises(ConfigError):
        prepare.prepare({"stage": "probe", "seed": 0, "lora": LORA | {"r": 0}}, tmp_path, {}, ())


def test_a_stage_says_which_parts_must_be_there(monkeypatch, tmp_path):
    """A stage with ``CHECKED`` begins although another part fails its check; one without does not begin."""

    class Careless:
        CHECKED = frozenset({"lora"})

        def __init__(self, job, lora, source):
            self.source = source

        def run(self):
            return self.source.path

    missing = {"_target_": "loraloop.source.files.Files", "path": str(tmp_path / "nothing.csv")}
    config = {"stage": "probe", "seed": 0, "lora": LORA, "source": missing}
    monkeypatch.setitem(stages.STAGES, "probe", Careless)
    assert str(prepare.prepare(config, tmp_path, {}, ())()).endswith("nothing.csv")
    monkeypatch.delattr(Careless, "CHECKED")
    with pytest.raises(ConfigError, match=r"nothing\.csv"):
        prepare.prepare(config, tmp_path, {}, ())


@pytest.mark.parametrize("key", ["_recursive_", "_convert_"])
def test_a_key_that_steers_hydra_is_no_key_of_a_part(execute, key):
    """Parts are not built by Hydra: its own keys are refused like any other that a part does not have."""
    (problem,) = problems(execute, lora=LORA | {key: "all"})
    assert problem.startswith(f"lora.{key} is not a key of lora")
