"""Review, siblings and training sets agree on which sessions are about the same task."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.same_task import question, task_key
from loraloop.feedback import layout
from loraloop.feedback.settings import Feedback
from loraloop.records import Rating, Session
from loraloop.source.sessions import Sessions, reading
from loraloop.workflows.proposals import propose
from loraloop.workflows.retraining.training_set import TrainingSetBuilder

TASKS = st.sampled_from(
    ["Count the heads", " count  THE heads. ", "Count\nthe heads?!", "caf\u00e9", "cafe\u0301", "other"]
)
SYSTEMS = st.sampled_from(["", "Read the dial.", "read  the DIAL."])
ROLES = st.sampled_from([None, "validator", "actor", "counter"])


def prompt(system: str, task: str) -> Any:
    turns = [{"role": "user", "content": task}]
    return [{"role": "system", "content": system}, *turns] if system else task


def session(name: str, system: str, task: str, role: str | None, stars: int) -> Session:
    return Session(
        id=name, time="2026-03-02T11:00:00.000+00:00", asked="ocr@7", answered="ocr@7", role=role, status="ok",
        prompt=prompt(system, task), answer=f"answer of {name}", duration=1.0, rating=Rating(stars=stars),
    )  # fmt: skip


SERVED = st.lists(st.tuples(SYSTEMS, TASKS, ROLES, st.sampled_from([1, 4, 5])), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(served=SERVED)
def test_one_rule_finds_the_same_siblings_everywhere(served: list[tuple[str, str, str | None, int]]) -> None:
    """A bad session has a proposal, a sibling in the exported folder and one in the training set, or none of them."""
    made = [session(f"s{nth}", *each) for nth, each in enumerate(served)]
    alike = {
        bad.id
        for bad in made
        if bad.stars == 1 and any(good.stars == 5 and task_key(good) == task_key(bad) for good in made)
    }
    with tempfile.TemporaryDirectory() as place:
        store = Feedback(folder=Path(place), review="none").open()
        for each in made:
            store.insert(each)
        layout.export(store, Path(place) / "out")
        part = Sessions(path=Path(place) / "out", min_corrective=0, use=("corrective",))
        from_files = part.judge(reading.read(Path(place) / "out")[0])
        unused: Any = None
        policy: Any = SimpleNamespace(below=4, min_corrective=0, learn="sft")
        builder = TrainingSetBuilder(policy, Path(place), store, unused, unused, unused, 0)
        everything: Any = SimpleNamespace(role="validator", owns=lambda version: True)
        trained_on = builder._corrective(everything)
        propose(store)
        proposed = {each.session for each in store.proposals()}
        store.close()
    assert proposed == alike
    assert {one.id for one in from_files if one.examples} == alike
    assert {one.provenance.session_id for one in trained_on} == alike
    assert {one.provenance.session_id: one.origin for one in trained_on} == {
        each.id: question(each) for each in made if each.id in alike
    }


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (session("b", "", "count the  HEADS!", "actor", 1), True),
        (session("b", "", "Count the heads", "validator", 1), False),
        (session("b", "", "Count the tails", "actor", 1), False),
        (session("b", "Be quick.", "Count the heads", "actor", 1), False),
    ],
)
def test_what_makes_two_tasks_the_same(other: Session, same: bool) -> None:
    """Agent, instruction and words count; case, white space and final punctuation do not."""
    assert (task_key(other) == task_key(session("a", "", "Count the heads.", "actor", 5))) is same
