"""The command line: what it refuses and how, and the grammar that it takes from Hydra."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from loraloop import __version__
from waiting import PATIENCE

CONF = Path(__file__).parents[1] / "conf"
SMALL = ("source.runs=2", "trainer.max_steps=2", "evaluation.max_rows=8", "tracker=none")
COLLECT = ("stage=collect", "source.runs=2", "dataset.export=rows.jsonl")


def problems(seen):
    """The problems that a refused command was answered with: exit code 2 and nothing but sentences on stderr."""
    assert (seen.code, seen.out) == (2, ""), seen
    first, *others = seen.err.splitlines()
    assert first.startswith("loraloop: ")
    if not others:
        return [first.removeprefix("loraloop: ")]
    assert first == f"loraloop: {len(others)} problems:"
    assert all(line.startswith("  - ") for line in others)
    return [line.removeprefix("  - ") for line in others]


def traces(desk):
    """Files beside the records that Hydra keeps of every job's configuration."""
    return {file for file in desk.files() if "/.hydra/" not in file}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("lora.droput=0.1", "lora.droput=0.1: there is no key lora.droput (did you mean lora.dropout?); lora has r, "),
        ("loar=r8", "loar=r8: there is no key loar (did you mean lora?); the top level has "),
        ("lora=r9", "lora=r9: there is no lora named 'r9'"),
        ("+experiment=ocr", "+experiment=ocr: there is no experiment named 'ocr'"),
        ("stage=trian", "stage=trian: there is no stage named 'trian' (did you mean pretrain?); there are ab, "),
        ("lora.r=abc", "lora.r='abc': input should be a valid integer"),
        ("lora.dropout=1.5", "lora.dropout=1.5: input should be less than 1"),
        ("+trainer.epoch=2", "trainer.epoch is not a key of trainer (did you mean epochs?); it has epochs, "),
        ("trainer.schedule=sine", "trainer.schedule='sine': input should be 'linear', 'cosine' or 'constant'"),
        ("model=hub", "model.name is not set, and stage=experiment needs it: add model.name=..."),
        ("stage=evaluate", "adapter is not set, and stage=evaluate needs it: add adapter=..."),
        ("lora.r=[", "lora.r=[: the value holds a character with a meaning of its own in Hydra's grammar; quote it "),
        ("lora.targets=q_proj", "lora.targets='q_proj': input should be 'all-linear', or a list, such as [a,b]"),
        ("trainer.seed=${oc.env:NOWHERE}", "trainer.seed: KeyError raised while resolving interpolation"),
        ("model.name=bundled:big", "model.name=bundled:big is not in the package; it holds bundled:tiny"),
        ("source._target_=os.system", "source._target_=os.system is outside loraloop.: only these prefixes are built"),
        ("lora.targets=[nowhere]", "lora.targets holds 'nowhere', which is no linear layer of the model; there are "),
        ("trainer.max_length=100000", "trainer.max_length=100000"),
    ],
)
def test_a_refused_configuration_is_one_sentence_and_leaves_nothing(desk, override, sentence):
    """A wrong key, group, choice, type, bound or missing value: exit code 2, sentences without a traceback, no work."""
    (problem,) = problems(desk.attempt(override))
    assert problem.startswith(sentence)
    assert traces(desk) == set()


def test_several_mistyped_names_are_shown_at_once(desk):
    """Every override that cannot be composed is named, not only the first one that Hydra finds."""
    found = problems(desk.attempt("loar=r8", "lora.r=16", "lora=r9", "lora.droput=1", "stage=trian"))
    assert [problem.partition(": ")[0] for problem in found] == ["loar=r8", "lora=r9", "lora.droput=1", "stage=trian"]


def test_several_wrong_values_are_shown_at_once(desk):
    """Wrong values of several parts, and what their checks found, are shown together."""
    found = problems(desk.attempt("lora.r=abc", "trainer.epochs=-1", "model.name=bundled:big", "lora.dropout=2"))
    assert {problem.partition("=")[0] for problem in found} == {
        "lora.r",
        "trainer.epochs",
        "model.name",
        "lora.dropout",
    }


def test_verbose_shows_the_traceback(desk):
    """With ``hydra.verbose=true`` the same mistake shows where it was raised; without it, one line."""
    seen = desk.process("lora.r=abc", "hydra.verbose=true")
    assert seen.code != 0
    assert "Traceback (most recent call last)" in seen.err
    assert "loraloop.errors.ConfigError: lora.r='abc'" in seen.err
    plain = desk.process("lora.r=abc")
    assert plain.code == 2
    assert plain.err.startswith("loraloop: lora.r='abc': ")
    assert plain.err.count("\n") == 1


def test_an_unknown_flag_shows_the_usage(desk):
    """A flag that does not exist ends with exit code 2 and the flags that do."""
    seen = desk.attempt("--bogus")
    assert seen.code == 2
    assert "unrecognized arguments: --bogus" in seen.err
    assert "--multirun" in seen.err
    assert desk.files() == set()


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path):
    """``loraloop --help | head -1`` prints one line and nothing on standard error."""
    command = f"{sys.executable} -m loraloop --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_cfg_job_shows_what_would_run(desk):
    """``--cfg job`` prints the composed configuration as YAML and writes nothing."""
    shown = yaml.safe_load(desk("--cfg", "job", "lora=r64", "seed=9").out)
    assert shown["lora"]["r"] == 64
    assert shown["seed"] == 9
    assert shown["stage"] == "experiment"
    assert desk.files() == set()


def test_flags_that_exclude_each_other_are_one_sentence(desk):
    """``-m`` with ``--cfg`` is refused in one sentence that names the flags, without a traceback."""
    (problem,) = problems(desk.attempt("-m", "lora=r8,r16", "--cfg", "job"))
    assert problem.endswith("--cfg and --info are of one job, without -m (--multirun)")
    assert desk.files() == set()


def test_help_writes_nothing(desk):
    """``--help`` is printed, also beside other arguments, and leaves nothing."""
    assert desk("--help").out == desk("lora=r9", "-h").out
    assert desk.files() == set()


@pytest.fixture
def mine(tmp_path_factory, monkeypatch):
    """A person's own source and lora choices, in a folder of their own, and the source's module."""
    root = tmp_path_factory.mktemp("mine")
    module = """
        from loraloop.core.part import part
        from loraloop.records import Collection, Example, Provenance

        @part
        class Squares:
            rows: int = 20

            def collect(self, ocr):
                where = Provenance(source="squares")
                made = [Example.one_turn(input=str(n), output=str(n * n), provenance=where) for n in range(self.rows)]
                return Collection(tuple(made))

            def correct(self, example, answer):
                return example.output == answer
    """
    (root / "conf" / "source").mkdir(parents=True)
    (root / "conf" / "my_sources.py").write_text(textwrap.dedent(module))
    (root / "conf" / "source" / "squares.yaml").write_text("_target_: my_sources.Squares\nrows: 30\n")
    (root / "conf" / "lora").mkdir()
    (root / "conf" / "lora" / "r3.yaml").write_text("defaults:\n  - r16\n\nr: 3\n")
    yield root / "conf"
    sys.modules.pop("my_sources", None)


@pytest.fixture(params=["--config-dir", "hydra.searchpath"])
def groups(request, mine):
    """Both ways to add the person's groups."""
    return ("--config-dir", str(mine)) if request.param == "--config-dir" else (f"hydra.searchpath=[file://{mine}]",)


def test_a_persons_own_groups_are_choices_like_any_other(desk, groups):
    """A choice of one's own folder builds one's own class once its prefix is allowed, and may inherit from ours."""
    seen = desk(*groups, "stage=collect", "source=squares", "dataset.export=rows.jsonl", "allow_targets=[my_sources.]")
    assert "24 train, 6 validation" in seen.out
    assert yaml.safe_load(desk("--cfg", "job", *groups, "lora=r3").out)["lora"]["r"] == 3


MISTAKES = {
    "missing": ("collect(", "colect(", "Squares has no collect (did you mean colect?); a Source has `def collect("),
    "arguments": ("collect(self, ocr)", "collect(self)", "Squares.collect(self) cannot be called as loraloop does; a "),
    "module": ("_target_: my", "_target_: my_sources.my", "there is no module my_sources.my_sources: keep it in"),
    "class": ("Squares:", "Square:", "my_sources has no Squares (did you mean Square?)"),
    "syntax": ("class Squares:", "class Squares", "SyntaxError: expected ':' (my_sources.py, line "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_ones_own_source_is_a_sentence(desk, mine, mistake):
    """What is wrong with a person's own class is told before anything runs, without a traceback."""
    right, wrong, told = MISTAKES[mistake]
    for file in (mine / "my_sources.py", mine / "source" / "squares.yaml"):
        file.write_text(file.read_text().replace(right, wrong))
    given = ("--config-dir", str(mine), "allow_targets=[my_sources.]", "source=squares", "stage=preview")
    (problem,) = problems(desk.attempt(*given))
    assert told in problem


def test_a_folder_that_is_not_there_is_named(desk):
    """``--config-dir`` with a wrong folder is the mistake that is told, not the choice that is missing for it."""
    (problem,) = problems(desk.attempt("--config-dir", "nowhere", "source=squares", "stage=preview"))
    assert problem == f"--config-dir nowhere is not a folder (from {desk.folder})"


def test_a_persons_own_class_needs_its_prefix_allowed(desk, groups):
    """Without ``allow_targets`` the same choice is refused, and the sentence holds what to add."""
    (problem,) = problems(desk.attempt(*groups, "stage=collect", "source=squares", "dataset.export=rows.jsonl"))
    assert "source._target_=my_sources.Squares is outside loraloop." in problem
    assert "allow_targets=[my_sources.]" in problem
    assert "my_sources" not in sys.modules


def test_a_command_made_of_a_jobs_overrides_finds_a_persons_own_groups(desk, groups, monkeypatch):
    """What a job says of its overrides composes again, own groups included, whichever way they were added."""
    jobs = []
    monkeypatch.setattr("loraloop.records.Call.__call__", lambda call: jobs.append(call.job))
    desk(*groups, "stage=preview", "lora=r3")
    assert yaml.safe_load(desk("--cfg", "job", *jobs[0].overrides).out)["lora"]["r"] == 3


def test_a_mistake_beside_a_persons_own_choice_is_blamed_alone(desk, groups):
    """A mistyped key is the only problem where the choice beside it comes from a person's own folder."""
    (problem,) = problems(desk.attempt(*groups, "source=squares", "lora.droput=1"))
    assert problem.startswith("lora.droput=1: there is no key lora.droput")


def test_an_unknown_choice_lists_a_persons_own_too(desk, groups):
    """The choices listed for a mistyped one include those of a person's own folder."""
    (problem,) = problems(desk.attempt(*groups, "lora=r33"))
    assert re.search(r"there are .*\br3\b", problem)


def test_a_multirun_gives_every_job_its_own_folder(desk):
    """``-m`` runs each combination once, each with its own value and in its own folder."""
    export = "dataset.export=${hydra:runtime.output_dir}/rows.jsonl"
    desk("-m", "stage=collect", "source.runs=1,2", "source.per_run=8", export)
    sizes = {file.parent.name: len(file.read_text().splitlines()) for file in desk.folder.rglob("rows.jsonl")}
    assert sizes == {"0": 8, "1": 16}


def test_a_mistake_in_a_multirun_is_blamed_alone(desk):
    """In a multirun a list of values is not taken for the mistake beside it."""
    (problem,) = problems(desk.attempt("-m", "lora=r8,r16", "lora.droput=1"))
    assert problem.startswith("lora.droput=1: there is no key lora.droput")
    (problem,) = problems(desk.attempt("-m", "lora=r8,r99", "trainer.learning_rate=1e-4,1e-3", "seed=range(0,2)"))
    assert problem.startswith("lora=r99: there is no lora named 'r99'")


def test_a_list_of_values_needs_a_multirun(desk):
    """Several values without ``-m`` are refused with the flag that they need."""
    (problem,) = problems(desk.attempt("lora=r8,r16"))
    assert problem.startswith("lora=r8,r16: ")
    assert "--multirun" in problem


def test_completion_completes_groups_choices_and_keys(tmp_path):
    """The printed script is evaluated by bash and completes what the ``loraloop`` command takes."""
    bash, command = shutil.which("bash"), Path(sys.executable).parent / "loraloop"
    assert bash
    assert command.exists()
    script = """
        set -eu
        eval "$(loraloop --shell-completion install=bash)"
        complete -p loraloop
        for COMP_LINE in "loraloop lora=" "loraloop lora.dr" "loraloop stage=pre"; do
            COMP_POINT=${#COMP_LINE} COMP_WORDS=($COMP_LINE) COMP_CWORD=1
            set +u; hydra_bash_completion 2>/dev/null; set -u
            echo "${COMPREPLY[*]}"
        done
    """
    done = subprocess.run(
        [bash, "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{command.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    registered, ranks, key, stage = done.stdout.splitlines()
    assert registered.endswith("-F hydra_bash_completion loraloop")
    assert set(ranks.split()) == {f"lora={file.stem}" for file in (CONF / "lora").glob("*.yaml")}
    assert key.strip() == "lora.dropout="
    assert set(stage.split()) == {"stage=pretrain", "stage=preview"}
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_in_the_same_folder_is_refused(desk):
    """A folder that holds a run is not written over: code 1, one sentence, data, adapter and scores as they were."""
    desk(*SMALL, "hydra.run.dir=out")
    kept = {name: (desk.folder / name).read_bytes() for name in traces(desk) if not name.endswith(".log")}
    assert {"out/adapter/adapter_model.safetensors", "out/dataset.jsonl"} <= set(kept)
    seen = desk.attempt(*SMALL, "hydra.run.dir=out", "seed=1", "lora=r8")
    assert (seen.code, seen.out) == (1, "")
    assert seen.err.startswith(
        f"loraloop: {desk.folder / 'out'} holds an earlier run: give this one a folder of its own"
    )
    assert seen.err.count("\n") == 1
    after = {name: (desk.folder / name).read_bytes() for name in traces(desk) if not name.endswith(".log")}
    assert after == kept


def test_a_file_whose_name_is_no_text_is_named_escaped(tmp_path):
    """A bad row of a file with a name that is not UTF-8 costs itself alone and is printed with these bytes escaped."""
    rows = "".join(f'{{"input": "q{index}", "output": "a"}}\n' for index in range(10)) + "no json\n"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")).write_text(rows)
    command = [Path(sys.executable).with_name("loraloop"), "stage=collect", "source=files", "source.path=."]
    done = subprocess.run(
        [*command, "dataset.export=out/rows.jsonl"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9.jsonl:11" in done.stdout
    assert "quarantined: 1\n" in done.stdout


def test_the_version_is_loraloops(desk):
    """`--version` prints the package's own version."""
    assert desk("--version").out == f"loraloop {__version__}"


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["stage=nonsense"], 2)])
def test_the_command_ends_in_order(tmp_path, arguments, code):
    """The installed command calls what was registered for its end, writes all output and has the code of ``main``."""
    program = textwrap.dedent("""
        import atexit, sys, threading, time
        from loraloop.__main__ import command
        atexit.register(print, "called")
        threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
        command()
        print("went on")
    """)
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (code, ["thread", "called"])
