"""The canary rules: what holds for both, and what is special to each."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.canary.plain import Plain
from loraloop.canary.sequential import ACTIONS, Sequential
from loraloop.canary.tally import Arm, Sample, arms
from loraloop.core.anytime_valid import radius
from loraloop.protocols import Canary
from loraloop.records import CanaryVerdict, Outcome, Rollout

Stars = tuple[int | None, ...]
BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
ROLLOUT = Rollout(
    id="r1", role="validator", model="loraloop-ocr", stable=6, canary=7, share=0.15, began=BEGAN.isoformat()
)


def outcome(
    name: str, version: int, success: bool | None = True, stars: int | None = 5, talk: str | None = None
) -> Outcome:
    return Outcome(
        session=name,
        time=(BEGAN + timedelta(hours=1)).isoformat(),
        conversation=talk or name,
        rater=None,
        answered=f"ocr@{version}",
        rollout="r1",
        success=success,
        stars=stars,
    )


def served(
    version: int, count: int, failing: int = 0, stars: tuple[int | None, ...] = (5, 4, 5, 3, 5)
) -> list[Outcome]:
    """Sessions of a version, the first of them failing, rated in turns."""
    return [outcome(f"{version}-{i}", version, i >= failing, stars[i % len(stars)]) for i in range(count)]


def decide(
    rule: Canary, outcomes: list[Outcome], age: timedelta = timedelta(days=1), share: float = 0.15
) -> CanaryVerdict:
    return rule.decide(replace(ROLLOUT, share=share), outcomes, (BEGAN + age).isoformat())


sessions = st.lists(
    st.tuples(
        st.sampled_from([6, 6, 7]),
        st.sampled_from([True, True, False, None]),
        st.sampled_from([None, 1, 3, 4, 5, 5]),
        st.integers(0, 40),
    ),
    max_size=80,
).map(lambda rows: [outcome(f"s{i}", v, ok, given, f"{v}-{t}") for i, (v, ok, given, t) in enumerate(rows)])


@pytest.mark.parametrize("kind", [Plain, Sequential], ids=["plain", "sequential"])
class TestEveryCanary:
    """What holds for every canary rule."""

    def test_a_good_one_is_promoted(self, kind):
        """A version that succeeds and is rated like the stable one, over many sessions, is promoted."""
        verdict = decide(kind(), [*served(6, 1700, failing=30), *served(7, 300, failing=0)])
        assert verdict.action == "promote"
        assert "success 100.0%" in verdict.reason

    def test_a_broken_one_is_rolled_back(self, kind):
        """A version that fails every time is rolled back within thirty sessions."""
        verdict = decide(kind(), [*served(6, 170), *served(7, 30, failing=30, stars=(1,))])
        assert verdict.action == "rollback"
        assert "success 0.0%" in verdict.reason

    def test_a_disliked_one_is_rolled_back(self, kind):
        """Success alone does not save a version that people rate with one star."""
        verdict = decide(kind(), [*served(6, 170), *served(7, 30, stars=(1,))])
        assert verdict.action == "rollback"
        assert "rating 1.00" in verdict.reason

    def test_too_few_sessions_wait(self, kind):
        """Five sessions decide nothing, good or bad, and the reason names the key."""
        for failing in (0, 5):
            verdict = decide(kind(), [*served(6, 50), *served(7, 5, failing=failing)])
            assert verdict.action == "wait"
            assert verdict.reason.startswith(("5 sessions of", "5 conversations of"))
            assert "canary.min_sessions=" in verdict.reason

    def test_nothing_at_all_waits(self, kind):
        """A rollout that nobody has met yet waits."""
        assert decide(kind(), []).action == "wait"

    def test_without_ratings_nothing_passes(self, kind):
        """However many sessions succeed, a version that nobody has rated is not promoted."""
        verdict = decide(kind(), [*served(6, 1700), *served(7, 300, stars=(None,))])
        assert verdict.action == "wait"
        assert "rat" in verdict.reason

    def test_without_an_end_nothing_passes(self, kind):
        """A version whose sessions the clients leave is not promoted, however well the few that end are rated."""
        for every in (300, 10):
            left = [replace(each, success=None) if i % every else each for i, each in enumerate(served(7, 300))]
            assert decide(kind(), [*served(6, 1700), *left]).action != "promote"

    def test_at_the_highest_age_nobody_waits(self, kind):
        """A rollout that nobody meets, or nobody rates, ends at its highest age, so that another can begin."""
        for rows in ([], [*served(6, 50), *served(7, 5)], [*served(6, 500), *served(7, 90, stars=(None,))]):
            assert decide(kind(), rows, timedelta(days=20, hours=23)).action == "wait"
            verdict = decide(kind(), rows, timedelta(days=21))
            assert verdict.action == "stop"
            assert verdict.reason.startswith("ended without a promotion at canary.max_age=21d: ")

    @given(st.text(max_size=40), st.text(max_size=40))
    def test_whatever_a_log_says_of_time_and_version(self, kind, time, answered):
        """A session with a time or a version that nobody can read is never an error."""
        odd = replace(outcome("odd", 7), time=time, rated=time, answered=answered)
        assert decide(kind(), [*served(6, 50), odd, *served(7, 5)]).action == "wait"

    @given(sessions)
    def test_numbers_go_into_a_ledger(self, kind, outcomes):
        """Whatever came, the numbers are finite JSON and the reason is one line."""
        verdict = decide(kind(), outcomes)
        json.dumps(verdict.numbers, allow_nan=False)
        assert verdict.reason
        assert "\n" not in verdict.reason

    @given(sessions)
    def test_names_do_not_matter(self, kind, outcomes):
        """A verdict does not depend on what sessions and conversations are called."""
        renamed = [replace(each, session=f"x{each.session}", conversation=f"x{each.conversation}") for each in outcomes]
        assert decide(kind(), renamed) == decide(kind(), outcomes)

    @pytest.mark.parametrize("share", [0, 1, -0.1])
    def test_a_share_of_nobody_or_everybody(self, kind, share):
        """A share leaves somebody for either version."""
        with pytest.raises(ValidationError, match="share"):
            kind(share=share)


class TestPlain:
    """The simple rule of ``policy=seed``."""

    def test_it_promotes_above_a_rating(self):
        """Its least rating is what a policy compares with the trigger's threshold."""
        assert Plain(min_rating=3.8).least_rating == 3.8

    def test_nineteen_of_twenty_are_not_above_95_percent(self):
        """One failure in twenty is exactly 95%, which is not more than 95%."""
        assert decide(Plain(), served(7, 20, failing=1)).action == "rollback"
        assert decide(Plain(), served(7, 20)).action == "promote"

    def test_only_the_last_sessions_count(self):
        """Failures before the last twenty sessions are forgotten."""
        assert decide(Plain(), served(7, 30, failing=10)).action == "promote"

    def test_sessions_that_clients_left_are_none(self):
        """Nineteen that the client left and one success do not make the ten that have to end."""
        left = [replace(each, success=None) for each in served(7, 19)]
        verdict = decide(Plain(), [*left, *served(7, 1)])
        assert verdict.action == "wait"
        assert verdict.reason == (
            "1 sessions of version 7, 19 more that the client left; 9 more needed (canary.min_sessions=10)"
        )

    def test_more_sessions_than_the_window_holds(self):
        """A minimum that the window cannot hold would wait for ever."""
        with pytest.raises(ValidationError, match="min_sessions=30 is more than window=20"):
            Plain(min_sessions=30)


class TestSequential:
    """The default rule."""

    def test_it_has_no_rating_of_its_own(self):
        """It compares with the stable version, at whatever rating that is."""
        assert Sequential().least_rating is None

    def test_a_promotion_is_what_the_bounds_say(self):
        """The reason of a promotion has rates, bounds, margins and sizes; the numbers have them unrounded."""
        verdict = decide(Sequential(), [*served(6, 1700, failing=30), *served(7, 300, failing=3)])
        assert verdict.action == "promote"
        assert verdict.reason == (
            "not worse by more than the margins: success 99.0% against 98.2% (at least "
            f"{100 * verdict.numbers['success']['lower']:+.1f} points, margin -5.0); rating 4.40 against 4.40 "
            f"(at least {verdict.numbers['stars']['lower']:+.2f} stars, margin -0.25); 300 and 1700 conversations"
        )
        assert verdict.numbers["success"]["lower"] > -0.05
        assert verdict.numbers["stars"]["lower"] > -0.25
        assert verdict.numbers["success"]["difference"] == pytest.approx(0.99 - 1670 / 1700)
        assert verdict.numbers["canary"] == {
            "sessions": 300, "conversations": 300, "rated_conversations": 300, "completed": 1, "success": 0.99,
            "stars": 4.4,
        }  # fmt: skip
        assert (verdict.numbers["alpha"], verdict.numbers["age_hours"]) == (0.05, 24)
        assert verdict.numbers["mismatch_p"] > 0.1

    @given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.lists(st.integers(1, 5), min_size=1, max_size=40))
    def test_bounds_are_those_of_the_definition(self, stable, canary):
        """Each end is the difference of means plus or minus the radius, with a conversation that speaks against it."""
        rows = [outcome(f"{version}-{i}", version, stars=given) for version, each in ((6, stable), (7, canary))
                for i, given in enumerate(each)]  # fmt: skip
        found = decide(Sequential(), rows).numbers["stars"]
        for end, best, worst, alpha, side in (("lower", 5, 1, 0.05, -1), ("upper", 1, 5, 0.05 / 3, 1)):
            against, own = [*stable, best], [*canary, worst]
            error = np.var(against, ddof=1) / len(against) + np.var(own, ddof=1) / len(own)
            bound = np.mean(own) - np.mean(against) + side * radius(error, 0.25, alpha)
            assert found[end] == pytest.approx(np.clip(bound, -4, 4), abs=1e-6)

    def test_a_rollback_names_what_is_worse(self):
        """Only the measure that is proven to be worse is named, with its upper bound."""
        verdict = decide(Sequential(), [*served(6, 340), *served(7, 60, stars=(2,))])
        assert verdict.action == "rollback"
        assert verdict.reason.startswith("worse: rating 2.00 against 4.40 (at most -")
        assert "success" not in verdict.reason

    def test_a_version_that_clients_leave_is_rolled_back(self):
        """Where clients leave a third of the canary's sessions, however good the others are, completion is named."""
        left = [replace(each, success=None) if i % 3 == 0 else each for i, each in enumerate(served(7, 300))]
        verdict = decide(Sequential(), [*served(6, 1700), *left])
        assert verdict.action == "rollback"
        assert verdict.reason.startswith("worse: completion 66.7% against 100.0% (at most -")
        assert verdict.numbers["canary"]["success"] == 1

    def test_completion_is_in_the_reason_where_it_matters(self):
        """Where clients leave some of either version's sessions, the reason of a promotion names completion, too."""
        left = [replace(each, success=None) if i % 50 == 0 else each for i, each in enumerate(served(6, 1700))]
        verdict = decide(Sequential(), [*left, *served(7, 300)])
        assert verdict.action == "promote"
        assert verdict.reason.startswith(
            "not worse by more than the margins: completion 100.0% against 98.0% (at least"
        )

    def test_completion_has_to_be_shown(self):
        """Where clients leave as many of both, but too few came to show that, nothing is promoted yet."""
        rows = [*served(6, 1700), *served(7, 300)]
        left = [replace(each, success=None) if i % 10 == 0 else each for i, each in enumerate(rows)]
        verdict = decide(Sequential(), left)
        assert verdict.numbers["success"]["lower"] > -0.05
        assert verdict.action == "wait"
        assert verdict.reason.startswith("undecided: completion 90.0% against 90.0% (-5.6 to ")

    def test_worse_within_the_margins_is_rolled_back(self):
        """A version known to be worse, but by less than the margins, is not promoted."""
        verdict = decide(Sequential(max_sessions=5000), [*served(6, 17_000), *served(7, 3000, failing=60)])
        assert verdict.numbers["success"]["lower"] > -0.05
        assert verdict.action == "rollback"

    def test_no_failure_in_a_few_sessions_proves_little(self):
        """Thirty sessions without a failure do not show a success rate to be within five points."""
        verdict = decide(Sequential(), [*served(6, 170), *served(7, 30)])
        assert verdict.action == "wait"
        assert verdict.numbers["success"]["lower"] < -0.05
        assert verdict.reason.startswith("undecided: success 100.0% against 100.0% (-")

    def test_a_conversation_is_one_observation(self):
        """Three hundred good sessions of one conversation are one observation, not three hundred."""
        one = [replace(each, conversation="talk") for each in served(7, 300)]
        verdict = decide(Sequential(), [*served(6, 1700), *one], share=0.001)
        assert verdict.numbers["canary"]["sessions"] == 300
        assert verdict.numbers["canary"]["conversations"] == 1
        assert verdict.action == "wait"

    def test_a_conversation_that_met_both_is_left_out(self):
        """Where both versions answered in a conversation, it compares nothing; other versions' sessions neither."""
        both = [outcome("a", 6, talk="both"), outcome("b", 7, talk="both")]
        stray = [outcome("c", 5), replace(outcome("d", 7), answered="base")]
        verdict = decide(Sequential(), [*served(6, 40), *served(7, 8), *both, *stray])
        assert verdict.numbers["other_sessions"] == 4
        assert verdict.numbers["canary"]["conversations"] == 8

    def test_conversations_that_met_both_end_it(self):
        """Where more than a few conversations met both versions, the rollout stops, and the reason says so."""
        clean = [*served(6, 1700), *served(7, 300)]

        def both(count: int) -> list[Outcome]:
            return [outcome(f"{v}x{i}", v, v == 6, 5, f"both {i}") for i in range(count) for v in (6, 7)]

        assert decide(Sequential(), [*clean, *both(3)]).action == "promote"
        assert decide(Sequential(), [*served(6, 170), *served(7, 30), *both(2)]).action == "wait"
        verdict = decide(Sequential(), [*clean, *both(4)])
        assert verdict.action == "stop"
        assert verdict.reason.startswith("4 conversations met more than one version, 300 the canary alone: ")
        assert verdict.numbers["crossed_conversations"] == 4

    def test_an_uneven_assignment_stops(self):
        """Half of the conversations in the place of 15% stop the rollout, whatever the answers were like."""
        verdict = decide(Sequential(), [*served(6, 50), *served(7, 50, failing=50)])
        assert verdict.action == "stop"
        assert verdict.reason.startswith(
            "the assignment is off its share: 50 of 100 conversations met the canary, and 0.15 of them should have"
        )
        assert verdict.numbers["mismatch_p"] < 0.001

    def test_the_rollouts_own_share_counts(self):
        """The share is the one that the rollout began with, whatever the rule's is by now."""
        assert decide(Sequential(), [*served(6, 50), *served(7, 50)], share=0.5).action == "wait"

    def test_the_cap_on_sessions_ends_undecided(self):
        """At the most sessions, a rollout that is not decided ends without a promotion; the key is named."""
        rows = [*served(6, 227, failing=2), *served(7, 40, failing=1)]
        assert decide(Sequential(), rows).action == "wait"
        verdict = decide(Sequential(max_sessions=40), rows)
        assert verdict.action == "stop"
        assert verdict.reason.startswith(
            "ended without a promotion at canary.max_sessions=40: undecided: success 97.5%"
        )

    def test_the_cap_on_time_ends_undecided(self):
        """At the highest age it ends as well, with too little data too; a promotion that is due then is made."""
        few = [*served(6, 50), *served(7, 5)]
        verdict = decide(Sequential(), few, timedelta(days=21))
        assert verdict.action == "stop"
        assert verdict.reason.startswith(
            "ended without a promotion at canary.max_age=21d: 5 conversations of the canary; "
        )
        assert decide(Sequential(), few, timedelta(days=20, hours=23)).action == "wait"
        assert decide(Sequential(), [*served(6, 1700), *served(7, 300)], timedelta(days=22)).action == "promote"

    def test_nothing_is_decided_before_the_minimum(self):
        """Below the fewest sessions even what is proven waits, a failure as well as a success."""
        rule = Sequential(min_sessions=400)
        assert decide(rule, [*served(6, 340), *served(7, 60, failing=60)]).action == "wait"
        assert decide(rule, [*served(6, 1700), *served(7, 300)]).action == "wait"

    def test_sessions_of_one_conversation_are_one_of_the_minimum(self):
        """Sixty failing sessions of one conversation do not open the verdict that sixty conversations open."""
        one = [replace(each, conversation="t") for each in served(7, 60, failing=60)]
        verdict = decide(Sequential(), [*served(6, 6), *one])
        assert verdict.action == "wait"
        assert verdict.reason == "1 conversations of the canary; 19 more needed (canary.min_sessions=20)"

    def test_a_cap_below_the_minimum(self):
        """A rule that would end before it may decide is refused."""
        with pytest.raises(ValidationError, match="min_sessions=50 is more than max_sessions=40"):
            Sequential(min_sessions=50, max_sessions=40)

    @given(sessions, st.randoms(use_true_random=False))
    def test_the_order_does_not_matter(self, outcomes, rng):
        """The same sessions in another order give the same verdict."""
        one, other = decide(Sequential(), outcomes), decide(Sequential(), rng.sample(outcomes, len(outcomes)))
        assert (one.action, one.numbers["canary"]["sessions"]) == (other.action, other.numbers["canary"]["sessions"])
        for measure in ("success", "stars"):
            assert one.numbers[measure]["lower"] == pytest.approx(other.numbers[measure]["lower"], abs=1e-9)

    @given(st.integers(2, 300), st.integers(2, 2000), st.integers(0, 299))
    def test_one_more_failure_never_helps(self, canary, stable, failing):
        """With the same number of sessions, one more failure of the canary does not raise its lower bound."""
        rule, failing = Sequential(), min(failing, canary // 2)
        better, worse = (
            rule.judge(_arm(stable, 0), _arm(canary, count), timedelta(1)).success for count in (failing, failing + 1)
        )
        assert worse.lower[0] <= better.lower[0]

    @given(sessions)
    def test_bounds_enclose_the_difference(self, outcomes):
        """Where there are bounds, the difference is between them, and a promotion or rollback is what they say."""
        verdict = decide(Sequential(), outcomes)
        figures = [verdict.numbers[name] for name in ("success", "stars")]
        for each in figures:
            assert each["lower"] is None or each["lower"] <= each["difference"] <= each["upper"]
        if verdict.action == "promote":
            assert all(each["lower"] > -each["margin"] for each in figures)
        if verdict.action == "rollback":
            assert any(each["upper"] < 0 for each in figures)

    @settings(max_examples=20)
    @given(st.lists(sessions, min_size=2, max_size=5))
    def test_many_rollouts_are_judged_like_one(self, histories):
        """Rollouts judged together, as in the benchmark, are judged as each alone, as in production."""
        rule, found = Sequential(min_sessions=2), [arms(ROLLOUT, outcomes) for outcomes in histories]
        stable, canary = (_together([pair[side] for pair in found]) for side in (0, 1))
        together = rule.judge(stable, canary, timedelta(days=1)).action
        assert [ACTIONS[action] for action in together] == [decide(rule, each).action for each in histories]

    @pytest.mark.parametrize(("success", "stars"), [(0.935, 4.4), (0.985, 4.15)])
    def test_at_a_margin_few_are_promoted(self, success, stars):
        """Asked at each of 84 ticks, at most alpha of the versions exactly at a margin are promoted."""
        runs, ticks, rule = 400, 84, Sequential()
        rng = np.random.default_rng(31)
        stable, canary = (_drawn(rng, runs, ticks, *figures) for figures in ((57, 0.985, 4.4), (10, success, stars)))
        promoted = np.zeros(runs, dtype=bool)
        waiting = np.ones(runs, dtype=bool)
        for tick in range(ticks):
            action = rule.judge(_at(stable, tick), _at(canary, tick), timedelta(hours=4 * tick)).action
            promoted |= waiting & (action == ACTIONS.index("promote"))
            waiting &= action == ACTIONS.index("wait")
        assert promoted.mean() <= rule.alpha + 3 * (rule.alpha * (1 - rule.alpha) / runs) ** 0.5
        assert waiting.mean() < 0.5


@given(st.lists(st.floats(1, 5), min_size=2, max_size=30))
def test_a_sample_knows_its_mean_and_error(values):
    """Count, sum and sum of squares give the mean and the unbiased estimate of its variance."""
    sample = Sample.of(values)
    assert sample.mean[0] == pytest.approx(np.mean(values))
    assert sample.error[0] == pytest.approx(np.var(values, ddof=1) / len(values), abs=1e-9)
    assert sample.also(3.0).mean[0] == pytest.approx(np.mean([*values, 3.0]))


def test_one_observation_has_no_known_error():
    """Below two observations, the variance of the mean is unknown, not zero."""
    assert Sample.of([4.0]).error[0] == np.inf
    assert Sample.of([]).error[0] == np.inf


@pytest.mark.parametrize(
    ("answered", "found"),
    [("ocr@7", 7), ("base", 0), ("ocr@champion", 0), ("a@b@12", 12), pytest.param("ocr@" + "9" * 5000, 0, id="long")],
)
def test_a_versions_number_is_read_from_its_name(answered, found):
    """Immutable versions have a number; nothing else is mistaken for one."""
    assert replace(outcome("s", 1), answered=answered).version == found


def _arm(count: int, failing: int) -> Arm:
    size = np.array([float(count)])
    success = np.array([float(count - failing)])
    stars = Sample(size, 4 * size, 17 * size)
    return Arm(size, size, Sample(size, size, size), Sample(size, success, success), stars)


def _together(found: list[Arm]) -> Arm:
    def join(name: str) -> Sample:
        return Sample(*(np.concatenate(each) for each in zip(*(getattr(arm, name) for arm in found), strict=True)))

    sizes = (np.concatenate([getattr(arm, name) for arm in found]) for name in ("sessions", "conversations"))
    return Arm(*sizes, join("completed"), join("success"), join("stars"))


def _drawn(rng: np.random.Generator, runs: int, ticks: int, size: int, success: float, stars: float) -> Arm:
    """Arms after every tick: ``size`` sessions each, rated 5 or 2 so that the mean is ``stars``."""
    right = (rng.random((runs, ticks, size)) < success).astype(float)
    given = np.where(rng.random((runs, ticks, size)) < (stars - 2) / 3, 5.0, 2.0)
    count = np.broadcast_to(size * np.arange(1.0, ticks + 1), (runs, ticks))

    def sample(values: np.ndarray) -> Sample:
        return Sample(count, values.sum(axis=2).cumsum(axis=1), (values**2).sum(axis=2).cumsum(axis=1))

    return Arm(count, count, Sample(count, count, count), sample(right), sample(given))


def _at(arm: Arm, tick: int) -> Arm:
    samples = (Sample(*(each[:, tick] for each in sample)) for sample in (arm.completed, arm.success, arm.stars))
    return Arm(arm.sessions[:, tick], arm.conversations[:, tick], *samples)
