"""What rules do with made-up and with recorded sessions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from loraloop.canary.plain import Plain as PlainCanary
from loraloop.canary.sequential import Sequential as SequentialCanary
from loraloop.records import Outcome, Rollout
from loraloop.simulation.plots import picture
from loraloop.simulation.replay import replay, rollouts
from loraloop.simulation.simulation import Simulation
from loraloop.simulation.trace import Rules, Trace, ticks
from loraloop.simulation.users import Quality, SimulatedUsers
from loraloop.trigger.plain import Plain as PlainTrigger
from loraloop.trigger.sequential import Sequential as SequentialTrigger

SOUND = Rules("sequential", SequentialTrigger(), SequentialCanary())
SEED = Rules("plain", PlainTrigger(), PlainCanary())
EVERY, DAY = timedelta(hours=4), timedelta(days=1)
WEAK = Quality(success=0.95, stars=3.5)
BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
ROLLOUT = Rollout(id="r1", role="ocr", model="ocr", stable=6, canary=7, share=0.15, began=(BEGAN + 3 * DAY).isoformat())


def play(rules: Rules = SOUND, **changes: object) -> Trace:
    values = {"days": 14, "stable": WEAK, "crowd": SimulatedUsers(rated=0.5)} | changes
    return Simulation(**values).play(rules, EVERY, DAY)


def kinds(trace: Trace) -> list[str]:
    return [event.kind for event in trace.events]


def recorded(stars: int = 2, canary: Rollout = ROLLOUT, days: float = 6) -> list[Outcome]:
    """A version that people give ``stars``, and after three days a rollout of one that always fails."""
    outcomes = []
    for number in range(int(days * 24)):
        time = BEGAN + timedelta(hours=number)
        within = time >= BEGAN + 3 * DAY
        version = canary.version(f"t{number}") if within else canary.stable
        new = version == canary.canary
        outcomes.append(
            Outcome(
                session=f"s{number}",
                time=time.isoformat(),
                conversation=f"t{number}",
                rater=f"r{number}",
                answered=f"ocr@{version}",
                rollout=canary.id if within else None,
                success=not new,
                stars=1 if new else stars,
            )
        )
    return outcomes


def test_a_weak_version_is_replaced():
    """The trigger fires for a weak version, its better successor is promoted and left in peace."""
    trace = play()
    assert kinds(trace) == ["trigger", "promote"]
    assert [event.subject for event in trace.events] == ["agent@1", "agent@2 for @1"]
    assert {version for time, version, _ in trace.looks if time > trace.events[1].time} == {"agent@2"}


def test_a_good_version_is_left_alone():
    """A version above the threshold is never retrained."""
    assert kinds(play(stable=Quality(success=0.985, stars=4.25))) == []


def test_a_broken_successor_is_rolled_back():
    """Every successor that is broken is rolled back, the first version stays active, and the loop goes on trying."""
    trace = play(candidate=Quality(success=0.5, stars=2))
    assert set(kinds(trace)) - {"open"} == {"trigger", "rollback"}
    assert {version for _, version, _ in trace.looks} == {"agent@1"}
    assert kinds(trace).count("trigger") > 1


def test_between_two_retrainings_there_is_a_pause():
    """No two retrainings are closer than the cooldown, and without one they are."""
    broken = Simulation(days=14, stable=WEAK, candidate=Quality(success=0.5, stars=2), crowd=SimulatedUsers(rated=0.5))

    def closest(cooldown: timedelta) -> timedelta:
        times = [event.time for event in broken.play(SOUND, EVERY, cooldown).events if event.kind == "trigger"]
        return min(later - earlier for earlier, later in pairwise(times))

    assert closest(5 * DAY) >= 5 * DAY > closest(EVERY)


def test_evidence_begins_with_the_last_retraining():
    """After a rollout that was lost, ratings count since its retraining began, and after one that won since then."""
    lost = play(candidate=Quality(success=0.5, stars=2))
    fired, after = lost.events[0].time, next(look for look in lost.looks if look[0] > lost.events[1].time)
    assert [event.kind for event in lost.events[:2]] == ["trigger", "rollback"]
    assert after[2].numbers["window_began"] == fired.isoformat()
    assert after[2].numbers["ratings"] > 40
    won = play()
    after = next(look for look in won.looks if look[0] > won.events[1].time)
    assert after[2].numbers["window_began"] == won.events[1].time.isoformat()


def test_a_rollout_without_an_end_is_told():
    """A rollout that is still going on when the time is over is told, with what is known of it."""
    trace = play(days=1.5, stable=Quality(success=0.985, stars=3), candidate=Quality(success=0.985, stars=3))
    assert kinds(trace) == ["trigger", "open"]
    assert trace.events[-1].reason == trace.rulings[-1][2].reason
    assert trace.events[-1].reason.startswith("undecided")


def test_rules_meet_the_same_people():
    """The same seed gives the same trace twice, and another rule the same first sessions."""
    one, again, other = play(days=5), play(days=5), play(days=5, seed=1)
    assert one.events == again.events != other.events
    _, _, plain = play(SEED, days=1).looks[0]
    assert 10 < plain.numbers["ratings"] < one.looks[0][2].numbers["ratings"]


def test_the_simulation_assigns_as_the_server_does():
    """Which version answers a made-up conversation is the rollout's own assignment."""
    trace = play(days=10, candidate=Quality(success=0.95, stars=3.5))
    _, rollout, ruling = trace.rulings[-1]
    sizes = [ruling.numbers[arm]["conversations"] for arm in ("canary", "stable")]
    assert sizes[0] / sum(sizes) == pytest.approx(rollout.share, abs=0.05)
    assert ruling.numbers["mismatch_p"] > 0.01


def test_ticks_see_the_last_session():
    """Ticks come at equal times, at least once, until the last session has been seen."""
    assert list(ticks(BEGAN, BEGAN, EVERY)) == [BEGAN + EVERY]
    assert list(ticks(BEGAN, BEGAN + 2.5 * EVERY, EVERY))[-1] == BEGAN + 3 * EVERY


def test_recorded_ratings_trigger_when_they_would_have():
    """A recording of poor ratings fires at the first tick by which there is proof, and again from there on."""
    outcomes = recorded()[:48]
    events = replay(SOUND, outcomes, EVERY, EVERY, []).events
    assert [event.kind for event in events[:2]] == ["trigger", "trigger"]
    assert events[1].time - events[0].time == events[0].time - BEGAN, "what was told before does not count again"
    seen = [each for each in outcomes if each.time <= events[0].time.isoformat()]
    assert SOUND.trigger.decide(seen, outcomes[0].time, events[0].time.isoformat()).passed
    earlier = events[0].time - EVERY
    before = [each for each in outcomes if each.time <= earlier.isoformat()]
    assert not SOUND.trigger.decide(before, outcomes[0].time, earlier.isoformat()).passed


def test_recorded_ratings_do_not_trigger_within_the_cooldown():
    """Between two firings on one recording there is at least the cooldown."""
    events = replay(SOUND, recorded()[:72], EVERY, DAY, []).events
    fired = [event.time for event in events if event.kind == "trigger"]
    assert len(fired) > 1
    assert min(later - earlier for earlier, later in pairwise(fired)) >= DAY


def test_recorded_rollouts_are_found_again():
    """Canary and share of a rollout are read from which conversations met which version."""
    (found,) = rollouts(recorded(days=30), share=0.5)
    assert (found.id, found.stable, found.canary) == ("r1", 6, 7)
    assert found.share == pytest.approx(0.15, abs=0.02)


def test_a_share_that_fits_is_kept():
    """Where the rule's share explains which conversation met which version, it is the rollout's."""
    (found,) = rollouts(recorded(days=5), share=0.15)
    assert found.share == 0.15


def test_an_older_version_may_be_the_canary():
    """The canary is told by the assignment, not by its number."""
    back = replace(ROLLOUT, stable=7, canary=6)
    (found,) = rollouts(recorded(canary=back, days=30), share=0.5)
    assert (found.stable, found.canary) == (7, 6)


def test_an_assignment_of_another_kind():
    """Where conversations do not tell, the newer version is the canary and the share is the rule's."""
    outcomes = [replace(each, conversation=f"x{number}") for number, each in enumerate(recorded(days=30))]
    (found,) = rollouts(outcomes, share=0.4)
    assert (found.stable, found.canary, found.share) == (6, 7, 0.4)


def test_a_rollout_of_one_version_is_none():
    """Where only one version answered, there is nothing to compare."""
    assert rollouts([each for each in recorded() if each.answered == "ocr@6"], share=0.15) == []


def test_a_recorded_rollout_is_decided_again():
    """A recorded rollout of a broken version is rolled back, and the version's own sessions trigger nothing."""
    outcomes = recorded(stars=5, days=20)
    trace = replay(SOUND, outcomes, EVERY, DAY, rollouts(outcomes, 0.15))
    assert [(event.kind, event.subject) for event in trace.events] == [("rollback", "ocr@7 for @6")]
    assert {version for _, version, _ in trace.looks} == {"ocr@6"}


def test_a_rating_is_known_when_it_was_given():
    """A recording whose ratings came three days late fires three days later."""
    early = recorded()[:48]
    late = [replace(each, rated=(datetime.fromisoformat(each.time) + 3 * DAY).isoformat()) for each in early]
    first, then = (replay(SOUND, each, EVERY, 9 * DAY, []).events for each in (early, late))
    assert [event.kind for event in (*first, *then)] == ["trigger", "trigger"]
    assert then[0].time == first[0].time + 3 * DAY


def test_a_late_rating_is_not_known_to_a_rollout_before():
    """A replayed rollout is not judged by ratings that nobody had given yet."""
    outcomes = [replace(each, success=True) for each in recorded(stars=5, days=20)]
    found, last = rollouts(outcomes, 0.15), (BEGAN + 20 * DAY).isoformat()
    late = [replace(each, rated=last) for each in outcomes]
    first, then = (replay(SOUND, each, EVERY, DAY, found).events for each in (outcomes, late))
    assert first[0].kind == then[0].kind == "rollback"
    assert first[0].time < BEGAN + 20 * DAY <= then[0].time


def test_the_base_is_not_retrained():
    """Sessions that the base answered trigger nothing."""
    outcomes = [replace(each, answered="base") for each in recorded(stars=1, days=2)]
    trace = replay(SOUND, outcomes, EVERY, DAY, [])
    assert (trace.looks, trace.events) == ([], [])


def test_a_recorded_rollout_may_stay_open():
    """A recording that ends before the rule can decide says so."""
    outcomes = recorded(stars=5, days=4)
    trace = replay(SOUND, outcomes, EVERY, DAY, rollouts(outcomes, 0.15))
    assert [event.kind for event in trace.events] == ["open"]


@pytest.mark.parametrize("rules", [SOUND, SEED, Rules("mixed", SEED.trigger, SOUND.canary)], ids=lambda r: r.name)
def test_every_trace_can_be_drawn(rules, tmp_path):
    """Stories with and without bounds, with and without rollouts, become a picture of 1200 x 1000 pixels."""
    from PIL import Image

    good = play(rules, stable=Quality(success=0.985, stars=4.25), days=2)
    picture([play(rules), play(SEED)], "two rules").savefig(tmp_path / "one.png")
    picture([good], "nothing happens").savefig(tmp_path / "two.png")
    for name in ("one.png", "two.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size == (1200, 1000)
            assert len(image.convert("RGB").getcolors(10**6)) > 50
