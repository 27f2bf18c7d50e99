"""Counters, gauges and histograms of the server, in a registry of their own.

The number of label sets is bounded, also on a server that runs for months: routes are path templates, statuses are
HTTP's, and after :data:`MODELS` different models every further one is counted as ``other``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from loraloop.core.tool_calls import is_broken

if TYPE_CHECKING:
    from prometheus_client import Counter, Metric

    from loraloop.records import Session

MODELS = 100
OTHER = "other"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the histograms' buckets, from a cached short answer to the longest deadline."""
COUNTS = {
    "hits": "Answers whose adapter was in memory",
    "misses": "Answers that waited for their adapter to be loaded",
    "loads": "Adapters loaded",
    "refused": "Adapters that were refused",
    "evictions": "Adapters put out of memory for others",
}
"""Counters that a backend's ``stats()`` may return, with their help texts."""
PREFIXES = {
    "prefix_tokens": "Tokens of prompts that were read for an earlier answer",
    "prefix_evictions": "Blocks of tokens put out of the prefix cache",
}
"""Counters of the prefix cache that a backend's ``stats()`` may return."""
LEVELS = {
    "prefix_bytes": "Memory of the prefix cache",
    "queue": "Requests that wait for a place",
    "active": "Requests that are being answered",
    "resident": "Adapters in memory",
}
"""Gauges that a backend's ``stats()`` may return."""

LOOP = {
    "loraloop_loop_cycles_total": ("Trips through the loop that are over", ("role", "outcome")),
    "loraloop_loop_state": ("1 for the state that the loop is in", ("role", "state")),
    "loraloop_loop_decisions_total": ("Decisions taken", ("role", "decision")),
    "loraloop_loop_tick_timestamp_seconds": ("When the loop was last looked at", ("role",)),
    "loraloop_canary_share": ("Share of conversations that a new version answers", ("role",)),
    "loraloop_canary_sessions": ("Sessions of the running rollout", ("role", "arm")),
    "loraloop_canary_success_ratio": ("Share of its sessions that came to their end", ("role", "arm")),
    "loraloop_canary_stars": ("Mean of the stars that people gave in it", ("role", "arm")),
    "loraloop_canary_failing": ("1 if the rule points at a rollback or a stop", ("role",)),
    "loraloop_ledger_intact": ("1 if the ledger's chain of hashes holds", ("model",)),
}
"""Figures that the loop may return, with help text and labels."""

Stats = Callable[[], Mapping[str, float]]
Loop = Callable[[], Iterable[tuple[str, Mapping[str, str], float]]]
logger = logging.getLogger(__name__)


class PrometheusMetrics:
    """Counts requests, sessions and ratings, and adds the figures of the backend and the loop to every scrape.

    Args:
        stats: Returns the backend's figures, at every scrape; names are those of :data:`COUNTS`, :data:`LEVELS`.
        loop: Returns the loop's figures, at every scrape; names and labels are those of :data:`LOOP`.
    """

    def __init__(self, stats: Stats | None = None, loop: Loop | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, metrics

        # A second series beside each counter, which nothing here reads.
        metrics.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        every: dict[str, Any] = {"namespace": "loraloop", "registry": self.registry}
        self._models: set[str] = set()
        self._requests = Counter("requests", "Requests by outcome", ["route", "model", "status"], **every)
        self._seconds = Histogram(
            "request_duration_seconds", "Time from request to end", ["route", "model"], buckets=SECONDS, **every
        )
        self._first = Histogram(
            "time_to_first_token_seconds", "Time from request to first token", ["model"], buckets=SECONDS, **every
        )
        self._tokens = Counter("tokens", "Tokens read and written", ["model", "kind"], **every)
        self._sessions = Counter("sessions", "Answers kept, by status", ["model", "status"], **every)
        self._broken = Counter(
            "tool_calls_unparsed", "Answers with a call that is none, given as text", ["model"], **every
        )
        self._ratings = Counter("ratings", "Ratings by stars", ["model", "stars", "kind"], **every)
        self._stars = Counter("rating_stars", "Sum of the stars of all ratings", ["model", "kind"], **every)
        self._answering = Gauge("adapter_info", "1 for every version that has answered", ["model", "role"], **every)
        self._behind = Gauge("alias_behind", "1: an earlier version answers", ["alias"], **every)
        self._in_flight = Gauge("requests_in_flight", "Requests being worked on", **every)
        ProcessCollector(registry=self.registry)
        if stats is not None:
            self.registry.register(_Backend(stats))
        if loop is not None:
            failed = Counter("loop_scrape_failures", "Scrapes without the loop's figures", **every)
            self.registry.register(_Loop(loop, failed))

    def began(self) -> None:
        """Count a request that begins."""
        self._in_flight.inc()

    def ended(self, route: str, model: str, status: int, seconds: float) -> None:
        """Count a request that ended; arguments as in :class:`loraloop.protocols.Metrics`."""
        name = self._model(model)
        self._in_flight.dec()
        self._requests.labels(route, name, str(status)).inc()
        self._seconds.labels(route, name).observe(seconds)

    def served(self, session: Session) -> None:
        """Count a session that was kept: its status, tokens, version, time to the first token, and a call that is none.

        A call that the end of an answer cut short is none either; what a client left is not looked at.
        """
        name = self._model(session.answered or "")
        self._sessions.labels(name, session.status or "").inc()
        self._tokens.labels(name, "prompt").inc(session.prompt_tokens or 0)
        self._tokens.labels(name, "completion").inc(session.completion_tokens or 0)
        self._answering.labels(name, session.role or "").set(1)
        if session.status == "ok" and is_broken(session.answer or "", bool(session.tools)):
            self._broken.labels(name).inc()
        if session.first_token is not None:
            self._first.labels(name).observe(session.first_token)

    def alias_behind(self, alias: str, behind: bool) -> None:
        """Whether an alias stays on an earlier version; there are as many labels as the registry has aliases."""
        self._behind.labels(alias).set(behind)

    def rated(self, model: str, stars: int, kind: str) -> None:
        """Count a rating.

        Args:
            model: The version that had answered.
            stars: 1 to 5.
            kind: ``explicit`` or ``implicit``.
        """
        name = self._model(model)
        self._ratings.labels(name, str(stars), kind).inc()
        self._stars.labels(name, kind).inc(stars)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def _model(self, name: str) -> str:
        if name in self._models or not name:
            return name
        if len(self._models) >= MODELS:
            return OTHER
        self._models.add(name)
        self._count_from_zero(name)
        return name

    def _count_from_zero(self, name: str) -> None:
        """Show counters at 0: Prometheus sees no increase in a series that begins at 1."""
        self._broken.labels(name)
        for kind in ("explicit", "implicit"):
            self._stars.labels(name, kind)
            for stars in range(1, 6):
                self._ratings.labels(name, str(stars), kind)


class _Backend:
    """Collects the backend's figures at every scrape."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        values = self._stats()
        for name, text in COUNTS.items():
            if name in values:
                yield CounterMetricFamily(f"loraloop_adapter_{name}", text, value=values[name])
        for name, text in PREFIXES.items():
            if name in values:
                yield CounterMetricFamily(f"loraloop_{name}", text, value=values[name])
        for name, text in LEVELS.items():
            if name in values:
                yield GaugeMetricFamily(f"loraloop_backend_{name}", text, value=values[name])


class _Loop:
    """Collects the loop's figures at every scrape; where that fails, the scrape has all others."""

    def __init__(self, loop: Loop, failed: Counter) -> None:
        self._loop, self._failed = loop, failed

    def collect(self) -> Iterator[Metric]:
        """Metric families that have a value now, each with at most :data:`MODELS` label sets."""
        try:
            figures = list(self._loop())
        except Exception as error:  # a scrape must not fail for the loop
            self._failed.inc()
            logger.error("the loop's figures cannot be read: %s", error)
            return
        families = _families()
        for name, labels, value in figures:
            if name in families and len(families[name].samples) < MODELS:
                families[name].add_metric([str(labels.get(key, "")) for key in LOOP[name][1]], value)
        yield from (family for family in families.values() if family.samples)


def _families() -> dict[str, Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    made: dict[str, Any] = {}
    for name, (text, labels) in LOOP.items():
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        made[name] = kind(name, text, labels=labels)
    return made
