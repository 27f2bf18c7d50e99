"""The training set of a retraining."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.dataset import exports
from loraloop.dataset.builder import DatasetBuilder
from loraloop.errors import ConfigError
from loraloop.feedback.settings import Feedback
from loraloop.policy import Mix
from loraloop.records import Example, Provenance, Rating, Row, Session
from loraloop.source.flips import Flips
from loraloop.source.sessions import Sessions
from loraloop.workflows.retraining.overlap import apart
from loraloop.workflows.retraining.steps import _contents
from loraloop.workflows.retraining.training_set import Scorer, ShortageError, TrainingSetBuilder, mixed, read


def examples(count: int, source: str) -> list[Example]:
    """Different examples of one source."""
    provenance = Provenance(source=source)
    return [
        Example.one_turn(input=f"{source} {number}", output=str(number), provenance=provenance)
        for number in range(count)
    ]


@given(
    corrective=st.integers(1, 60), earlier=st.integers(2, 200), share=st.floats(0.05, 1), rows=st.integers(20, 300)
)  # fmt: skip
def test_the_shares_hold_whatever_there_is(corrective, earlier, share, rows):
    """The set has the mix's shares to within a row, earlier examples come once, and it is never larger than asked."""
    mix = Mix(corrective=share, earlier=1 - share, rows=rows)
    new, old = mixed(examples(corrective, "sessions"), examples(earlier, "flips"), mix, 0)
    total = len(new) + len(old)
    assert new
    assert total <= rows
    assert abs(len(new) - share * total) <= 1
    assert len({each.input for each in old}) == len(old)
    assert len({each.input for each in new}) == min(corrective, len(new))


def test_the_draw_is_the_seeds_alone():
    """The same seed draws the same examples, in whatever order they came; another seed draws others."""
    new, old, mix = examples(9, "sessions"), examples(100, "flips"), Mix(rows=20)
    assert mixed(new, old, mix, 3) == mixed(new[::-1], old[::-1], mix, 3)
    assert mixed(new, old, mix, 3) != mixed(new, old, mix, 4)


def test_an_answer_is_scored_by_the_rule_of_its_source():
    """A corrected session is scored by its text, an earlier example by the rule of the source that made it."""
    flips = Flips(runs=1, per_run=1, tasks=("count",))
    (example,) = flips.collect(None).examples
    scorer = Scorer(flips)
    assert scorer.correct(example, example.output) == flips.correct(example, example.output)
    (session,) = examples(1, "sessions")
    assert scorer.correct(session, " 0 ") is Sessions().correct(session, " 0 ") is True
    assert scorer.collect(None).examples == ()


def test_without_earlier_examples_the_set_is_all_corrective():
    """With a mix of corrective examples alone, the set needs no earlier ones."""
    new, old = mixed(examples(4, "sessions"), [], Mix(corrective=1, earlier=0, rows=10), 0)
    assert (len(new), old) == (10, [])
    with pytest.raises(ValueError, match="shares add up to 1"):
        Mix(corrective=1, earlier=0.1)


@pytest.fixture
def builder(tmp_path: Path) -> TrainingSetBuilder:
    """A builder whose golden set is on disk; its other parts are not used."""
    unused: Any = None
    policy: Any = SimpleNamespace(golden=None, learn="auto")
    made = TrainingSetBuilder(policy, tmp_path / "loop", unused, unused, unused, unused, 0)
    exports.save(examples(3, "flips"), made.golden("validator"))
    return made


def deployment(*measured: Any) -> Any:
    """A deployment whose ledger holds these facts of training sets."""
    entries = [SimpleNamespace(numbers=facts) for facts in measured]
    return SimpleNamespace(role="validator", registry=SimpleNamespace(history=lambda: entries))


def facts(builder: TrainingSetBuilder) -> dict[str, Any]:
    """The facts of a cycle's training set that go into the ledger."""
    builder._write(builder.folder / "cycle", "validator", ([], [], examples(3, "flips")), [], [], ("sft", "told"))
    read: dict[str, Any] = json.loads((builder.folder / "cycle" / "set" / "facts.json").read_text())
    return read


def rated(number: int, *labels: bool) -> list[Example]:
    """What a session teaches by its stars: an example for each label."""
    provenance = Provenance(source="sessions", session_id=f"s{number}")
    made = Example.one_turn(input=f"ticket {number}", output="x", provenance=provenance)
    return [replace(made, label=label) for label in labels]


def test_a_session_that_was_bad_and_corrected_is_counted_once(builder):
    """The ledger counts sessions, not their examples, also those that the mix has no place for."""
    usable = [*rated(1, True, False), *rated(2, True), *rated(3, True, False)]
    builder._write(builder.folder / "all", "validator", (usable, [], examples(3, "flips")), usable, [], ("kto", "told"))
    made = read(builder.folder / "all")
    assert (made.facts["sessions"], made.facts["sessions_beyond_mix"]) == (3, 0)
    assert _contents(made).startswith("5 corrective rows of 3 sessions and 0 earlier ones")
    fewer = (usable[:3], [], examples(3, "flips"))
    builder._write(builder.folder / "fewer", "validator", fewer, usable, [], ("kto", "told"))
    made = read(builder.folder / "fewer")
    assert (made.facts["sessions"], made.facts["sessions_beyond_mix"]) == (2, 1)


def test_sessions_that_ask_what_golden_rows_ask_are_counted_once(builder):
    """A refusal counts sessions that are left and sessions that overlap, however many examples each has."""
    policy: Any = SimpleNamespace(golden=None, min_corrective=9)
    part = replace(builder, policy=policy, dataset=DatasetBuilder())
    unused: Any = None
    golden, found = rated(1, True), [*rated(1, True, False), *rated(2, True, False)]
    with pytest.raises(ShortageError, match=r"^1 corrected sessions are left .*: 1 more ask what golden rows ask"):
        part._apart(golden, found, unused, 1)


def named(builder: TrainingSetBuilder, path: Path) -> TrainingSetBuilder:
    """The same with a golden set that a person names."""
    policy: Any = SimpleNamespace(golden=path, learn="auto")
    return replace(builder, policy=policy)


def test_a_golden_set_is_frozen_by_whatever_path_it_is_named(builder, tmp_path, monkeypatch):
    """An edited golden set is refused in another spelling and from another folder too; another file is another set."""
    before = deployment(facts(builder))
    builder.check(before)
    path = builder.golden("validator")
    other = exports.save(examples(5, "flips"), tmp_path / "other.jsonl")
    exports.save(examples(4, "flips"), path)
    monkeypatch.chdir(tmp_path)
    for each in (builder, replace(builder, folder=Path("loop")), named(builder, path.relative_to(tmp_path))):
        with pytest.raises(ConfigError, match="is not the one that validator's versions were measured on"):
            each.check(before)
    named(builder, other).check(before)
    path.unlink()
    with pytest.raises(ConfigError, match="is not the one"):
        builder.check(before)


def test_a_named_golden_set_is_frozen_too(builder, tmp_path, monkeypatch):
    """A file of a person's own is the same one by its relative and its absolute path."""
    mine = exports.save(examples(3, "flips"), tmp_path / "mine.jsonl")
    before = deployment(facts(named(builder, mine)))
    exports.save(examples(4, "flips"), mine)
    monkeypatch.chdir(tmp_path)
    for path in (mine, Path("mine.jsonl")):
        with pytest.raises(ConfigError, match="is not the one"):
            named(builder, path).check(before)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x89PNG\r\n\x1a\n\0\xff", b'{"question": 1}\n'])
def test_a_file_that_is_no_golden_set_is_refused_before_anything_moves(builder, content):
    """An empty file, a binary one and one without examples are refused by the check, before a cycle begins."""
    path = builder.golden("validator")
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"the golden set {path} (cannot be read|holds no examples)"):
        builder.check(deployment())


def test_rows_that_ask_what_a_golden_row_asks_are_told_apart():
    """Equal prompts, one origin and near-identical texts overlap, as in the split; a shared instruction does not."""
    words = [f"word{number}" for number in range(40)]
    long = " ".join(words)

    def row(text: str, origin: str = "") -> Row:
        example = Example.one_turn(
            input=text, output="x", instruction=long, origin=origin, provenance=Provenance(source="s")
        )
        return Row(f"{long}\n{text}", "x", example)

    golden = [row("Read the dial."), row(long), row("first", "o1")]
    kept, dropped = apart(
        golden, [row("read  the DIAL"), row(" ".join([*words[:-1], "z"])), row("b", "o1"), row("new")]
    )
    assert [each.example.input for each in kept] == ["new"]
    assert len(dropped) == 3


def test_too_few_corrections_say_how_many_are_missing_and_where_they_are(builder, tmp_path):
    """A refusal counts what is missing, what waits for review, and what has no correction, each with its command."""
    store = Feedback(folder=tmp_path / "mlruns").open()
    for name, correction in (("s1", "network"), ("s2", "printing"), ("s3", "")):
        store.keep(Session(id=name, prompt=f"ticket {name}", answer="?", answered="support@1", status="ok"))
        store.rate(name, Rating(stars=2, correction=correction))
    store.decide(store.proposals()[0].id, "accepted")
    policy: Any = SimpleNamespace(golden=None, below=4, min_corrective=5, learn="auto")
    role: Any = SimpleNamespace(role="tickets", owns=lambda answered: answered == "support@1")
    with pytest.raises(ShortageError) as raised:
        replace(builder, policy=policy, store=store)._corrective(role)
    assert str(raised.value) == (
        "1 sessions of tickets rated below 4 have an answer to learn from; 4 more needed (policy.min_corrective=5); "
        "for 1 more a correction waits for review: loraloop stage=review below=4; "
        "1 more have no correction, no well-rated sibling and no rule: "
        "loraloop stage=feedback session=ID correction=..."
    )
    store.close()
