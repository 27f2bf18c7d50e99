"""A judge in the trigger, on a scripted judge that is served over HTTP and on scores that a property test draws."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from loraloop.canary.sequential import Sequential as Canary
from loraloop.feedback.schema import assessments
from loraloop.feedback.settings import Feedback
from loraloop.judge.openai import OpenAIJudge
from loraloop.policy import Policy
from loraloop.records import Assessment, Rating, Rollout, Session
from loraloop.trigger.sequential import Sequential
from loraloop.workflows import judging
from loraloop.workflows.retraining.due import RetrainingTrigger
from loraloop.workflows.retraining.rollout import StagedRollout
from scripted_judge import ScriptedJudge, serving, verdict

DAY = "2026-03-02T"
RATED = 25


@pytest.fixture
def store(tmp_path):
    """Answers that people rated well on average, and as many that nobody rated; each is its own conversation."""
    made = Feedback(folder=tmp_path / "mlruns").open()
    for at in range(2 * RATED):
        stars = (5, 5, 4, 5, 1)[at % 5] if at < RATED else 1
        known = {"time": f"{DAY}11:{at // 60:02}:{at % 60:02}.000+00:00", "client": f"user{at % 10}", "status": "ok"}
        made.keep(Session(id=f"s{at:02}", prompt=f"task {at}", answer=f"worth {stars}", answered="ocr@1", **known))
        if at < RATED:
            made.rate(f"s{at:02}", Rating(stars=stars))
    yield made
    made.close()


def judged(store, says):
    """Let a scripted judge score every answer; ``says`` takes what an answer is worth."""

    def reply(body):
        return verdict(says(int(re.search(r"worth (\d)", body["messages"][-1]["content"])[1])))

    with serving(ScriptedJudge(reply)) as scripted:
        part = OpenAIJudge(url=scripted.url, model="scripted", rubric="What is it worth?")
        assert judging.rate(part, store, judging.waiting(part, store, store.all()), []).counts["judged"] == 2 * RATED


def begun(store, **policy) -> tuple[Any, list[str]]:
    """The event with which a retraining begins, if one does, and what is said."""
    events, said = [], []
    state = SimpleNamespace(
        now=lambda: "2099-01-01T00:00:00+00:00",
        cycles=lambda role: [],
        begin=lambda role, model, champion, name, event: events.append(event),
    )
    cycles: Any = SimpleNamespace(state=state, warn=lambda *_: None, say=lambda role, sentence: said.append(sentence))
    deployment: Any = SimpleNamespace(
        role="validator", model="loraloop-ocr", champion=lambda: SimpleNamespace(number=1),
        name_of=lambda number: f"ocr@{number}", owns=lambda answered: answered.startswith("ocr@"),
        active_since=lambda number: f"{DAY}10:00:00+00:00",
    )  # fmt: skip
    rules = Policy(roles=("validator",), trigger=Sequential(window="36500d"), canary=Canary(), **policy)
    RetrainingTrigger(policy=rules, cycles=cycles, sessions=store, seed=0, shortage=lambda _: None).begin(deployment)
    return (events[0] if events else None), said


def test_a_judge_that_agrees_with_people_counts(store):
    """People alone do not begin a retraining; a judge that is shown to agree with them does, and the ledger says so."""
    judged(store, lambda worth: worth)
    assert begun(store, judge="rank")[0] is None
    event, said = begun(store, judge="trigger")
    assert (event.numbers["ratings"], event.numbers["judge_ratings"]) == (2 * RATED, RATED)
    assert event.numbers["judge_kappa_low"] >= 0.6
    assert event.numbers["judge"].startswith("counted: kappa of scripted against people is at least ")
    assert f"; {RATED} ratings are the judge's: kappa of scripted" in event.reason
    assert said == [f"trigger: {event.reason}"]


def test_a_judge_that_does_not_agree_does_not_count(store):
    """A judge that gives what people do not give begins nothing, and why is said; nor does one that may only rank."""
    judged(store, lambda worth: 1 if worth > 4 else worth)
    event, said = begun(store, judge="trigger")
    assert event is None
    assert re.search(
        r"the judge does not count: the kappa of scripted against people is at least -?0\.\d+, and", said[0]
    )
    for low in store.all()[:RATED]:  # with enough bad ratings of people it begins, and the ledger has the judge too
        store.keep(Session(id=f"x{low.id}", time=low.time, prompt="p", answer="a", answered="ocr@1", client=low.client))
        store.rate(f"x{low.id}", Rating(stars=1))
    event, _ = begun(store, judge="trigger")
    assert event.numbers["judge"].startswith("not counted: the kappa of scripted")
    assert begun(store, judge="never")[0].numbers["judge"] == "not counted (policy.judge=never)"


def test_few_conversations_prove_nothing(store):
    """With too few conversations that both rated, agreement is not taken for shown, however large it is."""
    for each in store.all()[:19]:
        said = Assessment(id="", source="judge", by="m", kind="feedback", name="score:0", value=each.stars)
        store.assess(each.id, [said])
    assert "m and people rated 19 conversations; 20 are needed" in begun(store, judge="trigger")[1][0]


def test_good_answers_alone_prove_nothing(store):
    """A judge that gives what people give does not count where four answers were bad, however many were good."""
    for each in store.all()[:24]:
        said = Assessment(id="", source="judge", by="m", kind="feedback", name="score:0", value=each.stars)
        store.assess(each.id, [said])
    said = begun(store, judge="trigger")[1][0]
    assert "where m scored, people gave 4 conversations less than 4 stars (policy.below), 20 as many or more" in said


@pytest.fixture(scope="module")
def rolled_out(tmp_path_factory):
    """Answers of both versions of a rollout that no person rated."""
    made = Feedback(folder=tmp_path_factory.mktemp("rollout")).open()
    for at in range(SESSIONS):
        known = {"time": f"{DAY}11:00:{at:02}.000+00:00", "client": f"user{at}", "status": "ok", "rollout": "r1"}
        made.keep(Session(id=f"s{at:02}", prompt="p", answer="a", answered=f"ocr@{1 + at % 2}", **known))
    yield made
    made.close()


SESSIONS = 44
SCORES = strategies.lists(strategies.integers(1, 5), min_size=SESSIONS, max_size=SESSIONS)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scores=SCORES, policy=strategies.sampled_from(["rank", "trigger"]))
def test_a_judge_alone_never_begins_or_promotes(rolled_out, scores, policy):
    """Whatever a judge gives both versions of a rollout, without a person's rating no training begins, none is won."""
    store, kept = rolled_out, []
    said = {"source": "judge", "by": "m", "kind": "feedback", "name": "score:0", "time": f"{DAY}12:00:00+00:00"}
    store.write(
        lambda connection: [
            connection.execute(assessments.insert().values(session=f"s{at:02}", value=score, rationale="", **said))
            for at, score in enumerate(scores)
        ]
    )
    assert begun(store, judge=policy)[0] is None
    rollout = Rollout(id="r1", role="validator", model="m", stable=1, canary=2, share=0.5, began=f"{DAY}10:00:00+00:00")
    state = SimpleNamespace(
        rollout=lambda _: rollout, now=lambda: f"{DAY}13:00:00+00:00", keep_verdict=lambda _, made: kept.append(made)
    )
    cycles: Any = SimpleNamespace(state=state, warn=lambda *_: None, say=lambda *_: None, end=lambda *_: None)
    rules = Policy(roles=("validator",), trigger=Sequential(), canary=Canary(), judge=policy)
    deployment: Any = SimpleNamespace(role="validator", name_of=lambda number: f"ocr@{number}")
    staged, cycle = (
        StagedRollout(policy=rules, cycles=cycles, sessions=store),
        SimpleNamespace(rollout="r1", candidate=2),
    )
    staged.judge(deployment, cycle)  # a promotion would call what these cycles do not have
    assert kept[0]["action"] != "promote"
    assert {arm["stars"] for arm in kept[0]["arms"].values()} == {None}
