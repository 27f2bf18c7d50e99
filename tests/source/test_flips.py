"""Coin flips: what they yield, how they are drawn, and how answers are judged."""

import csv
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.errors import ConfigError, DataError
from loraloop.source.flips import Flips, code, draw, longest_runs, spell

ALL = ("count", "simulate", "parity", "longest_run", "unlock")


def by_task(task: str, **settings) -> Flips:
    return Flips(tasks=(task,), runs=2, per_run=8, **settings)


def test_the_defaults_give_3200_sequences_of_32_flips_to_count():
    """100 runs of 32 sequences give 3,200 examples of 32 H or T with the task count."""
    examples = Flips().collect(None).examples
    assert len(examples) == 3200
    assert {len(e.input) for e in examples} == {32}
    assert set("".join(e.input for e in examples)) == {"H", "T"}
    assert {(e.task, e.instruction) for e in examples} == {("count", "Count the heads and tails.")}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
def test_counts_are_the_number_of_heads_and_tails(flips, seed, p):
    """For any length, seed and probability the output names exactly the heads and tails that the input shows."""
    for example in by_task("count", flips=flips, seed=seed, p=p).collect(None).examples:
        assert len(example.input) == flips
        assert example.output == f"{example.input.count('H')} heads, {example.input.count('T')} tails"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_parity_and_longest_run_agree_with_a_plain_count(flips, seed):
    """Parity and the longest run are what counting the letters one by one gives."""
    for example in by_task("parity", flips=flips, seed=seed).collect(None).examples:
        assert example.output == ("odd" if example.input.count("H") % 2 else "even")
    for example in by_task("longest_run", flips=flips, seed=seed).collect(None).examples:
        assert example.output == str(max(len(list(run)) for _, run in itertools.groupby(example.input)))


def test_longest_runs_are_counted_within_a_row():
    """A run does not go on into the next row."""
    assert longest_runs(np.array([[0, 1, 1], [1, 1, 1], [0, 1, 0]], np.uint8)).tolist() == [2, 3, 1]


def test_a_simulation_has_its_flips_and_their_counts():
    """The task simulate asks for 32 flips at a place of its own and shows a sequence with its counts."""
    examples = by_task("simulate").collect(None).examples
    assert {e.instruction for e in examples} == {"Flip a coin 32 times."}
    assert [e.input for e in examples][7:9] == ["Run 1, sequence 8.", "Run 2, sequence 1."]
    for example in examples:
        flips, counts = example.output.split(": ")
        assert len(flips) == 32
        assert counts == f"{flips.count('H')} heads, {flips.count('T')} tails"


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_a_vault_code_spells_its_key_in_hexadecimal(key):
    """The code of 32 flips is their number, heads as ones and the first flip highest, as XXXX-XXXX; 0/1 is the same."""
    digits = f"{key:032b}"
    letters = digits.replace("1", "H").replace("0", "T")
    assert code(letters) == code(digits)
    assert len(code(letters)) == 9
    assert int(code(letters).replace("-", ""), 16) == key
    assert code(letters) == code(letters).upper()


def test_unlock_answers_with_the_code_of_its_own_flips():
    """Every example of unlock has the code that its input spells."""
    assert code("THTHTHTHTHTHTHTHTHTHTHTHTHTHTHHH") == "5555-5557"
    for example in by_task("unlock").collect(None).examples:
        assert example.output == code(example.input)


def test_tasks_take_the_rows_in_turn():
    """Row i has task i modulo the number of tasks, so that all get equal shares."""
    examples = Flips(tasks=ALL, runs=1, per_run=12).collect(None).examples
    assert [e.task for e in examples] == [ALL[i % 5] for i in range(12)]
    assert [e.provenance.index for e in examples] == list(range(12))


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_the_seed_decides_every_flip(p):
    """Equal seeds give equal examples, other seeds others, and more runs only add to the end."""
    short, again, other = (Flips(runs=3, per_run=5, p=p, seed=seed).collect(None).examples for seed in (7, 7, 8))
    longer = Flips(runs=9, per_run=5, p=p, seed=7).collect(None).examples
    assert short == again
    assert short == longer[:15]
    assert [e.input for e in short] != [e.input for e in other]
    assert {(e.provenance.source, e.provenance.seed) for e in short} == {("flips", 7)}


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 0.5, 0.77, 1.0])
def test_heads_come_with_the_asked_probability(p):
    """Over 320,000 flips the share of heads is within five standard errors of p, and exact at 0 and 1."""
    share = draw(np.random.default_rng(0), 10_000, 32, p).mean()
    assert abs(share - p) <= 5 * (p * (1 - p) / 320_000) ** 0.5


def test_fair_flips_are_independent_of_their_neighbours():
    """Neighbouring columns and rows of fair flips agree half of the time, within five standard errors."""
    bits = draw(np.random.default_rng(1), 10_000, 33).astype(bool)
    for agree in (bits[:, 1:] == bits[:, :-1], bits[1:] == bits[:-1]):
        assert abs(agree.mean() - 0.5) <= 5 * 0.5 / agree.size**0.5


def test_digits_stand_for_the_same_flips_as_letters():
    """The symbols 01 write the same sequence with 1 for heads and 0 for tails, and the same counts."""
    letters, digits = (by_task("count", symbols=symbols).collect(None).examples for symbols in ("HT", "01"))
    assert [e.input.translate(str.maketrans("HT", "10")) for e in letters] == [e.input for e in digits]
    assert [e.output for e in letters] == [e.output for e in digits]
    assert spell(np.array([[1, 0, 0]], np.uint8), "01") == ["100"]


def test_the_log_has_one_line_per_flip_in_order(tmp_path):
    """The sequential log lists every flip of every sequence of every run, and spells the inputs."""
    path = tmp_path / "deep" / "flips.csv"
    examples = Flips(runs=2, per_run=3, flips=5, log=path).collect(None).examples
    with path.open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(int(x["run"]), int(x["sequence"]), int(x["flip"])) for x in lines] == list(
        itertools.product((1, 2), (1, 2, 3), (1, 2, 3, 4, 5))
    )
    assert "".join(x["result"] for x in lines) == "".join(e.input for e in examples)
    assert [file.name for file in path.parent.iterdir()] == ["flips.csv"]


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path):
    """A log below a file, or a log that is a folder, is refused with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"flips\.csv cannot be written"):
        Flips(runs=1, log=tmp_path / "file" / "flips.csv").collect(None)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match=r"source\.log=.*folder\.csv is a folder"):
        Flips(log=tmp_path / "folder.csv").check()


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("HHTT: 2 heads, 2 tails", True),
        (" THTH: 2 heads, 2 tails.\n", True),
        ("HHHH: 4 heads, 0 tails", True),
        ("HHTT: 3 heads, 1 tails", False),
        ("HHT: 2 heads, 1 tails", False),
        ("HHTTH: 3 heads, 2 tails", False),
        ("1100: 2 heads, 2 tails", False),
        ("HHTT", False),
        ("", False),
    ],
)
def test_a_simulation_is_right_when_it_is_long_enough_and_counts_itself(answer, right):
    """Any sequence of the asked length and letters with its own true counts is right, and nothing else."""
    source = Flips(tasks=("simulate",), flips=4)
    assert source.correct(source.collect(None).examples[0], answer) is right


def test_other_tasks_need_the_equal_answer():
    """Case, white space and a full stop are forgiven; another number is not."""
    source = Flips(tasks=ALL)
    example = next(e for e in source.collect(None).examples if e.task == "count")
    assert source.correct(example, f" {example.output.upper().replace(' ', '  ')}.")
    assert not source.correct(example, example.output.replace(" heads", "0 heads"))
    assert all(source.correct(e, e.output) for e in source.collect(None).examples)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"flips": 0}, "greater than or equal to 1"),
        ({"p": 1.5}, "less than or equal to 1"),
        ({"p": float("nan")}, "or equal to"),
        ({"tasks": ()}, "at least 1 item"),
        ({"tasks": ("cuont",)}, "'count', 'simulate', 'parity', 'longest_run' or 'unlock'"),
        ({"tasks": ("count", "count")}, "name each once"),
        ({"tasks": ("unlock",), "flips": 16}, "set flips=32 or take unlock out of tasks"),
        ({"runs": 10**6, "per_run": 10**6}, "lower one of them"),
        ({"log": "flips.txt"}, r"ends in \.csv"),
        ({"flip": 3}, "[Uu]nexpected keyword"),
    ],
)
def test_settings_out_of_bounds_are_refused_with_the_rule(settings, says):
    """Each bound is checked on construction and the message says the rule."""
    with pytest.raises(ValidationError, match=says):
        Flips(**settings)
