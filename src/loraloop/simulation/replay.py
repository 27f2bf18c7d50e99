"""Recorded sessions, shown to rules as they came in."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from loraloop.core.durations import moment
from loraloop.records import Outcome, Rollout
from loraloop.simulation.trace import Rules, Trace, ticks


def replay(
    rules: Rules, outcomes: Sequence[Outcome], every: timedelta, cooldown: timedelta, rollouts: Sequence[Rollout]
) -> Trace:
    """Ask ``rules`` what they would have done with recorded sessions.

    A version is looked at from its first session outside of its own rollout on, and when it fired with what came since,
    after the cooldown; the base, which nothing replaces, is not. At each tick only those sessions and ratings are known
    that had come by then.

    Args:
        rules: The rules.
        outcomes: Sessions, oldest first.
        every: Time between two ticks.
        cooldown: Least time between two firings.
        rollouts: Those among the sessions.
    """
    trace = Trace(rules, moment(outcomes[0].time))
    for rollout in rollouts:
        _rollout(trace, rollout, [each for each in outcomes if each.rollout == rollout.id], every)
    tried = {(rollout.id, f"{rollout.role}@{rollout.canary}") for rollout in rollouts}
    answered_by: dict[str, list[Outcome]] = defaultdict(list)
    for each in outcomes:
        if each.version and (each.rollout, each.answered) not in tried:
            answered_by[each.answered].append(each)
    for version, served in answered_by.items():
        _replay_version(trace, version, served, every, cooldown)
    trace.events.sort(key=lambda event: event.time)
    return trace


def rollouts(outcomes: Sequence[Outcome], share: float) -> list[Rollout]:
    """The rollouts that sessions were part of.

    Assignment is a hash (:meth:`loraloop.records.Rollout.version`): the canary is the version whose conversations have
    the lower ones, and the share lies between the two. Where these overlap, the newer version is the canary.

    Args:
        outcomes: Sessions, oldest first.
        share: Of a rollout whose conversations do not tell that it was another one.
    """
    found: dict[str, list[Outcome]] = defaultdict(list)
    for each in outcomes:
        if each.rollout is not None:
            found[each.rollout].append(each)
    return [rollout for name, served in found.items() for rollout in _rebuilt(name, served, share)]


def _rebuilt(name: str, served: Sequence[Outcome], share: float) -> Iterator[Rollout]:
    places: dict[int, list[float]] = defaultdict(list)
    for each in served:
        if each.version:
            places[each.version].append(_place(name, each.conversation))
    if len(places) != 2:
        return
    stable, canary = sorted(places)
    if max(places[stable]) < min(places[canary]):
        stable, canary = canary, stable
    highest, lowest = max(places[canary]), min(places[stable])
    if highest < lowest and not highest <= share <= lowest:
        share = (highest + lowest) / 2
    role = served[0].answered.rpartition("@")[0]
    yield Rollout(id=name, role=role, model=role, stable=stable, canary=canary, share=share, began=served[0].time)


def _place(rollout: str, conversation: str) -> float:
    """Where in 0..1 the assignment puts a conversation."""
    return int.from_bytes(hashlib.sha256(f"{rollout}|{conversation}".encode()).digest()[:8], "big") / 2**64


class _Record:
    """Sessions as they and their ratings came in."""

    def __init__(self, served: Sequence[Outcome]) -> None:
        self._served = served
        self._times = [moment(each.time) for each in served]
        self._rated = [moment(each.rated or each.time) for each in served]
        self.first, self.last = self._times[0], max(*self._times, *self._rated)

    def until(self, now: datetime, since: datetime | None = None) -> list[Outcome]:
        """What was known of the sessions from ``since`` to ``now``."""
        begin = 0 if since is None else bisect_left(self._times, since)
        end = bisect_right(self._times, now)
        known = zip(self._served[begin:end], self._rated[begin:end], strict=True)
        return [each if rated <= now else replace(each, stars=None, rated=None) for each, rated in known]


def _rollout(trace: Trace, rollout: Rollout, served: Sequence[Outcome], every: timedelta) -> None:
    record = _Record(served)
    for now in ticks(record.first, record.last, every):
        if trace.rule(now, rollout, record.until(now)).action != "wait":
            return
    trace.leave(now, rollout)


def _replay_version(
    trace: Trace, version: str, served: Sequence[Outcome], every: timedelta, cooldown: timedelta
) -> None:
    record = _Record(served)
    since = rested = record.first
    for now in ticks(record.first, record.last, every):
        if now >= rested and trace.look(now, version, record.until(now, since), since):
            since, rested = now, now + cooldown
