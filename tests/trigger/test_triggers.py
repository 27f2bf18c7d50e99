"""The triggers: what holds for both, and what is special to each."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.protocols import Trigger
from loraloop.records import Outcome, Verdict
from loraloop.simulation.users import Quality, SimulatedUsers
from loraloop.trigger.plain import Plain
from loraloop.trigger.sequential import Sequential

SINCE = datetime(2026, 3, 2, tzinfo=UTC)
NOW = SINCE + timedelta(days=1)


def outcome(number: int, stars: int | None, rater: str | None = None, talk: str | None = None) -> Outcome:
    """A session a second after the other, each a conversation and a rater of its own unless told otherwise."""
    time = (SINCE + timedelta(seconds=number + 1)).isoformat()
    return Outcome(
        session=f"s{number}",
        time=time,
        conversation=talk or f"s{number}",
        rater=rater or f"r{number}",
        answered="ocr@7",
        stars=stars,
    )


def late(number: int, stars: int, rated: int, rater: str | None = None) -> Outcome:
    """A session that was rated ``rated`` seconds after all began."""
    return replace(outcome(number, stars, rater), rated=(SINCE + timedelta(seconds=rated)).isoformat())


def unknown(number: int, stars: int, talk: str) -> Outcome:
    """A session of which nobody knows who rated it."""
    time = (SINCE + timedelta(seconds=number + 1)).isoformat()
    return Outcome(session=f"s{number}", time=time, conversation=talk, rater=None, answered="ocr@7", stars=stars)


def decide(rule: Trigger, outcomes: list[Outcome], now: datetime = NOW) -> Verdict:
    return rule.decide(outcomes, SINCE.isoformat(), now.isoformat())


rated = st.tuples(st.one_of(st.none(), st.integers(1, 5)), st.integers(0, 6), st.integers(0, 9))
histories = st.lists(rated, max_size=60).map(
    lambda rows: [outcome(i, stars, f"r{r}", f"t{t}-{r}") for i, (stars, r, t) in enumerate(rows)]
)


@pytest.mark.parametrize("kind", [Plain, Sequential], ids=["plain", "sequential"])
class TestEveryTrigger:
    """What a trigger has to keep to."""

    def test_poor_ratings_fire(self, kind):
        """Forty ratings of two stars, of as many people, fire; the reason and the numbers say the mean."""
        verdict = decide(kind(), [outcome(i, 2) for i in range(40)])
        assert verdict.passed
        assert verdict.reason.startswith("mean rating 2.00")
        assert (verdict.numbers["ratings"], verdict.numbers["raters"]) == (40, 40)
        assert (verdict.numbers["mean"], verdict.numbers["threshold"]) == (2.0, 3.8)

    def test_good_ratings_do_not_fire(self, kind):
        """Forty ratings of four and five stars do not fire."""
        verdict = decide(kind(), [outcome(i, 4 + i % 2) for i in range(40)])
        assert not verdict.passed
        assert "4.50" in verdict.reason

    def test_no_ratings_at_all(self, kind):
        """Sessions that nobody rated are no ratings, and the reason names the key."""
        verdict = decide(kind(), [outcome(i, None) for i in range(40)])
        assert not verdict.passed
        assert verdict.reason.startswith("0 ratings of 0 raters; 10 more ratings needed (trigger.min_ratings=10)")
        assert verdict.numbers["mean"] is None

    def test_no_sessions_at_all(self, kind):
        """A version that has answered nobody is not retrained."""
        assert not decide(kind(), []).passed

    def test_too_few_ratings(self, kind):
        """Nine ratings do not fire however poor they are; ten do."""
        rows = [outcome(i, 1) for i in range(10)]
        assert decide(kind(), rows[:9]).reason.startswith(
            "9 ratings of 9 raters; 1 more rating needed (trigger.min_ratings=10)"
        )
        assert decide(kind(), rows).passed

    def test_too_few_people(self, kind):
        """Two people cannot fire a rule that asks for three, and the reason names the key."""
        rows = [outcome(i, 1, rater=f"r{i % 2}") for i in range(30)]
        verdict = decide(kind(min_raters=3), rows)
        assert not verdict.passed
        assert verdict.reason.startswith(
            "30 ratings of 2 raters; ratings of 1 more person needed (trigger.min_raters=3"
        )
        assert decide(kind(min_raters=3), [*rows, outcome(30, 1, rater="r2")]).passed

    def test_one_person_counts_only_so_often(self, kind):
        """A hundred bad ratings of one person among contented ones weigh as many as the cap allows."""
        rows = [outcome(i, 5) for i in range(20)] + [outcome(i, 1, rater="angry") for i in range(20, 44)]
        assert decide(kind(per_rater=None), rows).numbers["mean"] < 3
        verdict = decide(kind(per_rater=2), rows)
        assert not verdict.passed
        assert verdict.numbers["ratings"] == 22

    def test_the_first_ratings_given_count(self, kind):
        """Somebody who rates the newest session first keeps the ratings that were counted once."""
        rows = [late(i, stars, rated=9 - i, rater="busy") for i, stars in enumerate((5, 5, 5, 1, 1, 1))]
        known = [each if i > 2 else replace(each, stars=None, rated=None) for i, each in enumerate(rows)]
        before, after = (decide(kind(per_rater=3), each).numbers for each in (known, rows))
        assert before["mean"] == after["mean"] == 1
        assert before["ratings"] == after["ratings"] == 3

    @given(st.text(max_size=40), st.text(max_size=40))
    def test_whatever_a_log_says_of_time_and_version(self, kind, time, answered):
        """A rating of which nobody can tell when it was is left out, and never an error."""
        rows = [outcome(i, 1) for i in range(12)]
        verdict = decide(kind(), [replace(outcome(99, 5), time=time, answered=answered), *rows])
        assert verdict.passed
        assert verdict.numbers["ratings"] in (12, 13)
        assert decide(kind(), [replace(each, time="yesterday") for each in rows]).numbers["ratings"] == 0

    def test_somebody_unknown_is_one_person_in_a_conversation(self, kind):
        """Ratings without a name are of one rater in each conversation."""
        same = [unknown(i, 1, talk="t") for i in range(12)]
        others = [unknown(i, 1, talk=f"t{i}") for i in range(12)]
        assert decide(kind(), same).numbers["raters"] == 1
        assert decide(kind(), others).numbers["raters"] == 12

    def test_a_name_is_not_mistaken_for_a_conversation(self, kind):
        """Somebody called like a conversation is not its unknown rater."""
        rows = [unknown(0, 1, talk="t"), outcome(1, 1, rater="t"), outcome(2, 1, rater="conversation t")]
        assert decide(kind(), rows).numbers["raters"] == 3

    @given(histories)
    def test_numbers_go_into_a_ledger(self, kind, outcomes):
        """Whatever the history, the numbers are finite JSON and the reason is one line."""
        verdict = decide(kind(), outcomes)
        json.dumps(verdict.numbers, allow_nan=False)
        assert verdict.reason
        assert "\n" not in verdict.reason

    @given(histories, st.integers(1, 5))
    def test_more_bad_ratings_never_turn_it_off(self, kind, outcomes, more):
        """Where it fires, one-star ratings of further people leave it firing."""
        if decide(kind(), outcomes).passed:
            worse = [outcome(len(outcomes) + i, 1, f"new{i}") for i in range(more)]
            assert decide(kind(), [*outcomes, *worse]).passed

    @given(histories, st.integers(0, 59))
    def test_a_worse_rating_never_turns_it_off(self, kind, outcomes, place):
        """Where it fires, it also does with any one rating lowered to one star."""
        if outcomes and outcomes[place % len(outcomes)].stars is not None and decide(kind(), outcomes).passed:
            place %= len(outcomes)
            lower = [*outcomes[:place], replace(outcomes[place], stars=1), *outcomes[place + 1 :]]
            assert decide(kind(), lower).passed

    @given(histories, st.integers(0, 20), st.sampled_from([3, 50]))
    def test_it_asks_for_all_that_it_looks_at(self, kind, outcomes, days, window):
        """A verdict on the sessions that the rule asks for is that on all of them."""
        rule = kind(window=window) if kind is Plain else kind(window="7d")
        spread = [
            replace(each, rated=(SINCE + timedelta(days=index / 3)).isoformat()) for index, each in enumerate(outcomes)
        ]
        now = SINCE + timedelta(days=days)
        look = rule.reads(SINCE.isoformat(), now.isoformat())
        since = look.rated_since and datetime.fromisoformat(look.rated_since)
        asked = [
            each
            for each in spread[-(look.latest or len(spread)) :]
            if since is None or (each.stars is not None and datetime.fromisoformat(each.rated) >= since)
        ]
        assert decide(rule, asked, now) == decide(rule, spread, now)

    @given(histories)
    def test_asking_again_gives_the_same(self, kind, outcomes):
        """A verdict depends on nothing but what it is given."""
        rule = kind()
        assert decide(rule, outcomes) == decide(rule, outcomes)

    @pytest.mark.parametrize("threshold", [1.0, 5.1, math.nan])
    def test_a_threshold_off_the_scale(self, kind, threshold):
        """A threshold that no rating, or every one, is below is refused."""
        with pytest.raises(ValidationError, match="threshold"):
            kind(threshold=threshold)


class TestPlain:
    """The simple rule of ``policy=seed``."""

    def test_only_the_last_sessions_count(self):
        """Fifty good sessions make forty bad ones before them forgotten."""
        bad = [outcome(i, 1) for i in range(40)]
        good = [outcome(i, 5) for i in range(40, 90)]
        assert decide(Plain(), bad).passed
        assert not decide(Plain(), [*bad, *good]).passed
        assert decide(Plain(window=90), [*bad, *good]).passed

    def test_the_threshold_itself_does_not_fire(self):
        """An average of exactly the threshold is not below it."""
        assert not decide(Plain(threshold=4), [outcome(i, 4) for i in range(10)]).passed


class TestSequential:
    """The default rule."""

    def test_a_few_poor_ratings_may_be_chance(self):
        """Ten ratings that average 3.5 fire the plain rule, not this one, and its bound says why."""
        rows = [outcome(i, stars) for i, stars in enumerate((1, 5, 5, 4, 2, 5, 4, 3, 5, 1))]
        verdict = decide(Sequential(), rows)
        assert decide(Plain(), rows).passed
        assert not verdict.passed
        assert verdict.numbers["upper"] > 3.8
        assert "is not shown to be below 3.8: 10 ratings of 10 raters since 2026-03-02 00:00" in verdict.reason

    @settings(max_examples=40)
    @given(histories)
    def test_it_fires_where_the_upper_bound_is_below(self, outcomes):
        """It fires exactly if there are enough ratings and the upper bound without any one rater is below."""
        numbers = (verdict := decide(Sequential(), outcomes)).numbers
        enough = numbers["ratings"] >= 10 and numbers["raters"] >= 3
        assert verdict.passed == (enough and numbers["upper_without_one"] < 3.8)
        assert 1 <= numbers["lower"] <= numbers["upper"] <= numbers["upper_without_one"] <= 5

    def test_nobody_fires_it_alone(self):
        """Twenty bad ratings of one among nineteen who are content are proof, but not without that one person."""
        rows = [outcome(i, 5) for i in range(19)] + [outcome(i, 1, rater="angry") for i in range(19, 39)]
        verdict = decide(Sequential(), rows)
        assert verdict.numbers["upper"] < 3.8
        assert not verdict.passed
        assert (
            " is not shown to be below 3.8 without the ratings of one person (then at most 5.000), so that more people "
            in verdict.reason
        )
        two = [outcome(39 + i, 1, rater="furious") for i in range(20)]
        assert decide(Sequential(), [*rows, *two]).passed

    def test_the_cap_holds_for_everybody(self):
        """A window counts as many ratings of each person as the cap allows."""
        rows = [outcome(i, 1, rater=f"r{i % 2}") for i in range(24)] + [outcome(i, 5) for i in range(24, 40)]
        assert decide(Sequential(per_rater=None), rows).numbers["ratings"] == 40
        assert decide(Sequential(per_rater=2), rows).numbers["ratings"] == 20

    def test_a_rating_counts_when_it_is_given(self):
        """A rating of the second week for a session of the first belongs to the second."""
        rows = [late(i, 2, rated=7 * 86400 + i) for i in range(30)]
        assert decide(Sequential(), rows, SINCE + timedelta(days=6.9)).numbers["ratings"] == 0
        verdict = decide(Sequential(), rows, SINCE + timedelta(days=8))
        assert (verdict.passed, verdict.numbers["window_began"]) == (True, "2026-03-09T00:00:00+00:00")

    def test_what_comes_around_a_windows_end_is_judged(self):
        """Ratings between a window's last look and its end fire at the next one, which says whose they are."""
        rows = [late(i, 2, rated=7 * 86400 - 60 + i) for i in range(30)]
        verdict = decide(Sequential(), rows, SINCE + timedelta(days=7, hours=3))
        assert verdict.passed
        assert verdict.reason.endswith("30 ratings of 30 raters from 2026-03-02 00:00 to 2026-03-09 00:00")
        assert not decide(Sequential(), rows, SINCE + timedelta(days=14, hours=3)).passed

    def test_each_window_is_judged_by_its_own_ratings(self):
        """What is proof neither of one window nor of the next is none of the two together."""
        rows = [late(i, 1, rated=7 * 86400 + 60 * (i - 6)) for i in range(12)]
        later = SINCE + timedelta(days=7, hours=3)
        verdict = decide(Sequential(min_ratings=5), rows, later)
        assert (verdict.passed, verdict.numbers["ratings"]) == (False, 6)
        assert decide(Sequential(min_ratings=5, window="14d"), rows, later).passed

    def test_a_conversation_is_one_opinion(self):
        """Twelve bad ratings in one conversation are a single opinion, whoever gave them."""
        rows = [outcome(i, 1, rater=f"r{i % 2}", talk="t") for i in range(12)]
        assert decide(Sequential(), rows).numbers["ratings"] == 1

    def test_a_conversation_is_bet_on_once(self):
        """Later ratings of a conversation change nothing: the bet on its first rating stays as it was placed."""
        first = [outcome(i, 1 + i % 5, talk=f"t{i}") for i in range(40)]
        again = [outcome(100 + i, 5, rater=f"r{i}", talk=f"t{i}") for i in range(40)]
        assert decide(Sequential(), [*first, *again]) == decide(Sequential(), first)

    @given(histories, st.randoms(use_true_random=False))
    def test_the_order_within_a_window_does_not_matter(self, outcomes, rng):
        """Without a cap, the same ratings in another order decide the same."""
        rule = Sequential(per_rater=None)
        one, other = decide(rule, outcomes), decide(rule, rng.sample(outcomes, len(outcomes)))
        assert one.passed == other.passed
        assert one.numbers["upper"] == pytest.approx(other.numbers["upper"], abs=1e-6)

    def test_each_window_begins_anew(self):
        """A good first week does not outweigh a poor second one; the window's beginning is told."""
        good = [outcome(i, 5) for i in range(500)]
        poor = [outcome(7 * 86400 + i, 2) for i in range(30)]
        later = decide(Sequential(), [*good, *poor], SINCE + timedelta(days=8))
        assert later.passed
        assert later.numbers["window_began"] == "2026-03-09T00:00:00+00:00"
        assert not decide(Sequential(window="30d"), [*good, *poor], SINCE + timedelta(days=8)).passed

    def test_what_comes_later_is_not_seen(self):
        """Sessions after the moment of the verdict, as a replay holds them, do not count."""
        rows = [outcome(i, 1) for i in range(30)]
        assert decide(Sequential(), rows, SINCE + timedelta(seconds=15)).numbers["ratings"] == 15

    def test_times_without_a_zone_are_utc(self):
        """A store that leaves the zone out means UTC."""
        rows = [outcome(i, 1) for i in range(30)]
        bare = Sequential().decide(rows, "2026-03-02T00:00:00", "2026-03-03T00:00:00")
        assert bare == decide(Sequential(), rows)

    @pytest.mark.parametrize("window", ["7", "7 days", "0d", ""])
    def test_a_window_without_a_unit(self, window):
        """A window is a number with its unit."""
        with pytest.raises(ValidationError, match="30m or 4h"):
            Sequential(window=window)

    def test_weeks_of_simulated_ratings(self):
        """Asked after every 12 ratings: at most 5% of weeks fire at the threshold, over 95% at 3.45."""
        crowd, rule, weeks = SimulatedUsers(sessions=12), Sequential(), 400
        rng = np.random.default_rng(23)

        def fired(mean: float) -> float:
            visits = crowd.visit(weeks, 42, rng)
            quality = Quality(success=0.9, stars=mean)
            stars = crowd.answer(visits, quality, quality, np.zeros(visits.mood.shape, dtype=bool)).stars
            given, people = (each.reshape(weeks, -1) for each in (stars, visits.rater))
            looks = [rule.fires(given[:, :end], people[:, :end]) for end in range(12, given.shape[1] + 1, 12)]
            return float(np.any(looks, axis=0).mean())

        assert fired(4.1) < 0.01
        assert fired(3.8) < 0.05 + 3 * (0.05 * 0.95 / weeks) ** 0.5
        assert fired(3.45) > 0.95

    def test_a_decision_is_that_of_the_simulation(self):
        """The parts that benchmarks call on whole arrays say after every session what a verdict says."""
        stars = np.random.default_rng(29).integers(1, 5, size=60)
        rule = Sequential(min_ratings=1, min_raters=1)
        rows = [outcome(i, int(given)) for i, given in enumerate(stars)]
        found = [decide(rule, rows[: i + 1]).passed for i in range(60)]
        assert found == [bool(rule.fires(stars[: i + 1], np.arange(i + 1))) for i in range(60)]
        assert any(found)
        assert not all(found)
