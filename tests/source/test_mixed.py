"""Several sources in fixed shares."""

import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from loraloop.core import tables
from loraloop.errors import ConfigError, DataError
from loraloop.source.files import Files
from loraloop.source.flips import Flips
from loraloop.source.mixed import Mixed, shares

CONF = Path(__file__).parents[2] / "conf"


def own_file(folder: Path, rows: int, *, broken: int = 0) -> Files:
    path = folder / "mine.jsonl"
    tables.write(path, [{"input": f"mine {i}", "output": f"answer {i}"} for i in range(rows)])
    with path.open("a") as stream:
        stream.write("{\n" * broken)
    return Files(path=str(path))


def mixed(folder: Path, **settings: Any) -> Mixed:
    sources = {"flips": Flips(runs=10, per_run=10), "mine": own_file(folder, 20, broken=2)}
    return Mixed(**{"sources": sources, "weights": {"flips": 0.6, "mine": 0.4}, **settings})


def makers(source: Mixed) -> Counter[str]:
    return Counter(e.provenance.source for e in source.collect(None).examples)


def test_the_shares_are_exact_and_as_large_as_the_sources_allow(tmp_path):
    """With 100 flips and 20 others, 60% to 40% gives 30 and 20; with rows set, exactly so many."""
    assert makers(mixed(tmp_path)) == {"flips": 30, "mine/files": 20}
    assert makers(mixed(tmp_path, rows=10)) == {"flips": 6, "mine/files": 4}
    assert makers(mixed(tmp_path, weights={"flips": 3, "mine": 1})) == {"flips": 60, "mine/files": 20}


WEIGHTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0.001, 1000), min_size=1, max_size=6)


@given(WEIGHTS, st.integers(0, 10_000))
def test_shares_add_up_and_stay_within_one_of_the_exact_share(weights, rows):
    """For any weights the counts add up to the rows, and none is a whole row away from its exact share."""
    counts = shares(weights, rows)
    assert sum(counts.values()) == rows
    total = sum(weights.values())
    assert all(abs(counts[name] - rows * weights[name] / total) < 1 + 1e-6 for name in weights)


def test_remainders_go_to_the_largest():
    """Rows that do not divide go to the largest remainders, and decimal weights count as written."""
    assert shares({"a": 0.6, "b": 0.4}, 5) == {"a": 3, "b": 2}
    assert shares({"a": 1, "b": 1, "c": 1}, 5) == {"a": 2, "b": 2, "c": 1}
    assert shares({"a": 0.5, "b": 0.35, "c": 0.15}, 10) == {"a": 5, "b": 4, "c": 1}


def test_nothing_is_drawn_twice_and_the_sources_are_shuffled(tmp_path):
    """No example appears twice, all 20 of the small source are there, and neither source comes in one block."""
    examples = mixed(tmp_path).collect(None).examples
    assert len({(e.provenance.source, e.provenance.index) for e in examples}) == 50
    assert {e.input for e in examples if e.provenance.source == "mine/files"} == {f"mine {i}" for i in range(20)}
    changes = sum(a.provenance.source != b.provenance.source for a, b in itertools.pairwise(examples))
    assert changes > 10


def test_the_seed_decides_the_draw_and_the_order(tmp_path):
    """Equal seeds give equal mixes, another seed another one."""
    first, again, other = (mixed(tmp_path, seed=seed).collect(None).examples for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_what_the_sources_set_aside_is_passed_on(tmp_path):
    """The corrupt lines of one source are in the mix's quarantine."""
    reasons = [q.item.rpartition(":")[2] for q in mixed(tmp_path).collect(None).quarantined]
    assert reasons == ["21", "22"]


def test_too_many_rows_are_refused_with_what_there_is(tmp_path):
    """When a source is too small for its share the error names it, its need, its stock and the largest mix."""
    with pytest.raises(DataError, match=r"rows=60 needs .*: mine 24 \(has 20\)\. Set source\.rows=50"):
        mixed(tmp_path, rows=60).collect(None)


def test_an_answer_is_judged_by_the_source_that_made_the_example(tmp_path):
    """A simulation other than the one shown is right by the rule of flips, which equality would refuse."""
    source = mixed(
        tmp_path,
        sources={"coins": Flips(tasks=("simulate",), flips=4), "mine": own_file(tmp_path, 20)},
        weights={"coins": 1, "mine": 1},
    )
    examples = source.collect(None).examples
    coin = next(e for e in examples if e.provenance.source == "coins/flips")
    other = next(e for e in examples if e.provenance.source == "mine/files")
    assert source.correct(coin, "HHHT: 3 heads, 1 tails")
    assert not source.correct(other, "HHHT: 3 heads, 1 tails")
    assert source.correct(other, other.output.upper())


def test_a_mix_of_mixes_finds_the_maker(tmp_path):
    """An example of a mix within a mix is judged by the innermost source."""
    outer = Mixed(
        sources={"inner": mixed(tmp_path), "flips": Flips(runs=1, tasks=("parity",))}, weights={"inner": 1, "flips": 1}
    )
    examples = outer.collect(None).examples
    assert {e.provenance.source for e in examples} == {"inner/flips", "inner/mine/files", "flips"}
    assert all(outer.correct(e, e.output) for e in examples)
    assert not any(outer.correct(e, "neither") for e in examples)


def test_an_example_from_elsewhere_is_not_judged(tmp_path):
    """An example that none of the sources made is an error, not a silent verdict."""
    example = own_file(tmp_path, 1).collect(None).examples[0]
    with pytest.raises(DataError, match="'files' is not from this mix of flips, mine"):
        mixed(tmp_path).correct(example, "x")


def test_all_problems_of_all_sources_are_shown_under_their_own_keys(tmp_path):
    """The check of a mix names every source's problem by the key under which it stands in the mix."""
    source = Mixed(
        sources={"a": Files(), "b": Files(path=str(tmp_path / "none")), "c": Flips()}, weights={"a": 1, "b": 1, "c": 1}
    )
    with pytest.raises(ConfigError) as error:
        source.check()
    first, second = error.value.problems
    assert first.startswith("source.sources.a.path is not set")
    assert "source.sources.a.path=my.csv" in first
    assert second.startswith("source.sources.b.path=")


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"flips": 1}, "every source needs one weight"),
        ({"flips": 1, "mine": 1, "vault": 1}, "every weight a source"),
        ({"flips": 1, "mine": 0}, "greater than 0"),
        ({"flips": 1, "mine": float("inf")}, "finite"),
    ],
)
def test_weights_must_be_positive_and_fit_the_sources(tmp_path, weights, says):
    """A missing, a surplus, a zero and an infinite weight are refused with the rule."""
    with pytest.raises(ValidationError, match=says):
        mixed(tmp_path, weights=weights)


@pytest.fixture
def composed(tmp_path):
    """The group ``source`` as the command line composes it, with overrides."""
    shutil.copytree(CONF / "source", tmp_path / "conf" / "source")
    (tmp_path / "conf" / "top.yaml").write_text("defaults: [_self_, {source: mixed}]\nseed: 3\nfolder: mlruns\n")

    def run(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
            return OmegaConf.to_container(compose("top", list(overrides)), resolve=True)["source"]

    return run


def test_the_config_takes_its_sources_from_their_own_files(composed):
    """``source=mixed`` nests the configs of flips and vault as they are, 60% to 40%."""
    config = composed()
    assert config["weights"] == {"flips": 0.6, "vault": 0.4}
    assert config["sources"] == {"flips": composed("source=flips"), "vault": composed("source=vault")}


def test_a_source_of_the_mix_can_be_set_exchanged_and_added(composed):
    """A nested key is set by its path; another source takes a place, or a place of its own, by one override."""
    config = composed(
        "source.sources.flips.runs=7",
        "source@source.sources.vault=files",
        "+source@source.sources.mine=alpaca",
        "+source.weights.mine=0.5",
    )
    assert config["sources"]["flips"]["runs"] == 7
    assert config["sources"]["vault"]["_target_"] == "loraloop.source.files.Files"
    assert config["sources"]["mine"]["name"] == "tatsu-lab/alpaca"
    assert config["weights"] == {"flips": 0.6, "vault": 0.4, "mine": 0.5}
