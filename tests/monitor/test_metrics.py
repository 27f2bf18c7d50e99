"""What is counted, and in which form."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from loraloop.errors import StoreError
from loraloop.monitor.metrics import LOOP, MODELS, OTHER, PrometheusMetrics
from loraloop.records import Session

TOLD = [
    ("loraloop_loop_cycles_total", {"role": "validator", "outcome": "promoted"}, 2.0),
    ("loraloop_loop_cycles_total", {"role": "validator", "outcome": "rolled_back"}, 1.0),
    ("loraloop_loop_state", {"role": "validator", "state": "canary"}, 1.0),
    ("loraloop_loop_decisions_total", {"role": "validator", "decision": "rollout"}, 3.0),
    ("loraloop_loop_tick_timestamp_seconds", {"role": "validator"}, 1.8e9),
    ("loraloop_canary_share", {"role": "validator"}, 0.15),
    ("loraloop_canary_sessions", {"role": "validator", "arm": "stable"}, 85.0),
    ("loraloop_canary_sessions", {"role": "validator", "arm": "canary"}, 15.0),
    ("loraloop_canary_success_ratio", {"role": "validator", "arm": "canary"}, 0.98),
    ("loraloop_canary_stars", {"role": "validator", "arm": "canary"}, 4.2),
    ("loraloop_canary_failing", {"role": "validator"}, 0.0),
    ("loraloop_ledger_intact", {"model": "loraloop-ocr"}, 1.0),
]
"""What a loop tells, once of each kind."""


def served(model: str = "ocr@7", status: str = "ok", role: str | None = "validator") -> Session:
    """An answer of five tokens to a prompt of three."""
    return Session(
        id="s", time="2026-11-20T10:00:00Z", asked=model, answered=model, role=role, prompt="p", answer="a",
        status=status, duration=0.2, first_token=0.05, prompt_tokens=3, completion_tokens=5,
    )  # fmt: skip


def busy() -> PrometheusMetrics:
    """Metrics in which everything was counted once."""
    stats = {
        "hits": 5,
        "misses": 2,
        "loads": 2,
        "refused": 1,
        "evictions": 0,
        "queue": 3,
        "active": 4,
        "resident": 2,
    }
    metrics = PrometheusMetrics(lambda: stats, lambda: TOLD)
    metrics.began()
    metrics.began()
    metrics.ended("/v1/chat/completions", "ocr@7", 200, 0.2)
    metrics.served(served())
    metrics.rated("ocr@7", 4, "explicit")
    return metrics


def values(metrics: PrometheusMetrics) -> dict[tuple[str, ...], float]:
    """Every sample by name and label values."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_everything_is_counted():
    """Requests, latency, first token, tokens, sessions, ratings, versions, queue and adapters are there."""
    found = values(busy())
    assert found["loraloop_requests_total", "/v1/chat/completions", "200", "ocr@7"] == 1
    assert found["loraloop_requests_in_flight",] == 1
    assert found["loraloop_request_duration_seconds_sum", "/v1/chat/completions", "ocr@7"] == 0.2
    assert found["loraloop_time_to_first_token_seconds_sum", "ocr@7"] == 0.05
    assert found["loraloop_tokens_total", "ocr@7", "prompt"] == 3
    assert found["loraloop_tokens_total", "completion", "ocr@7"] == 5
    assert found["loraloop_sessions_total", "ocr@7", "ok"] == 1
    assert found["loraloop_ratings_total", "4", "explicit", "ocr@7"] == 1
    assert found["loraloop_rating_stars_total", "explicit", "ocr@7"] == 4
    assert found["loraloop_adapter_info", "ocr@7", "validator"] == 1
    assert found["loraloop_adapter_hits_total",] == 5
    assert found["loraloop_adapter_refused_total",] == 1
    assert found["loraloop_backend_queue",] == 3
    assert found["loraloop_backend_resident",] == 2
    assert found["process_resident_memory_bytes",] > 0


def test_the_loop_is_told():
    """Every figure of the loop is in the scrape with its labels, under the name that it came by."""
    found = values(busy())
    for name, labels, value in TOLD:
        assert found[(name, *sorted(labels.values()))] == value
    assert {name for name, _, _ in TOLD} == set(LOOP)


def test_the_share_of_versions_can_be_told():
    """The sessions of each version are counted apart, also of two that serve a role at the same time."""
    metrics = PrometheusMetrics()
    for number in range(20):
        metrics.served(served("ocr@8" if number < 3 else "ocr@7", "ok" if number else "error"))
    found = values(metrics)
    assert found["loraloop_sessions_total", "error", "ocr@8"] == 1
    assert found["loraloop_sessions_total", "ocr@8", "ok"] == 2
    assert found["loraloop_sessions_total", "ocr@7", "ok"] == 17


def test_a_call_that_is_none_is_counted():
    """An answer with a broken call counts where tools were offered and the client stayed; one with a call does not."""
    metrics = PrometheusMetrics()
    tools = [{"type": "function", "function": {"name": "look"}}]
    broken = '<tool_call>{"name": "look", '
    for answer, offered, status in (
        (broken, tools, "ok"),
        (broken, None, "ok"),
        (broken, tools, "cancelled"),
        ('<tool_call>{"name": "look", "arguments": {}}</tool_call>', tools, "ok"),
        ("no call", tools, "ok"),
    ):
        metrics.served(dataclasses.replace(served(status=status), answer=answer, tools=offered))
    assert values(metrics)["loraloop_tool_calls_unparsed_total", "ocr@7"] == 1


def test_a_loop_that_cannot_tell(caplog):
    """A scrape goes on without the loop's figures, which is logged and counted."""

    def away():
        raise StoreError("the database is locked")

    metrics = PrometheusMetrics(loop=away)
    metrics.served(served())
    values(metrics)
    found = values(metrics)
    assert found["loraloop_sessions_total", "ocr@7", "ok"] == 1
    assert found["loraloop_loop_scrape_failures_total",] >= 1
    assert "the database is locked" in caplog.text
    assert not any(key[0] in LOOP for key in found)


def test_what_the_loop_tells_is_bounded():
    """Names that are not the loop's are left out, labels are those of the name, and each has so many sets at most."""
    many = [("loraloop_canary_share", {"role": f"r{number}"}, 0.1) for number in range(MODELS + 50)]
    others = [("loraloop_secrets", {"role": "a"}, 1.0), ("loraloop_canary_failing", {"role": "a", "id": "b"}, 1.0)]
    found = values(PrometheusMetrics(loop=lambda: many + others))
    assert sum(key[0] == "loraloop_canary_share" for key in found) == MODELS
    assert not any(key[0] == "loraloop_secrets" for key in found)
    assert found["loraloop_canary_failing", "a"] == 1


def test_labels_are_bounded():
    """A server that has answered with more versions than are told apart counts the rest as one."""
    metrics = PrometheusMetrics()
    for number in range(MODELS + 50):
        metrics.served(served(f"ocr@{number}"))
    models = {key[1] for key in values(metrics) if key[0] == "loraloop_time_to_first_token_seconds_count"}
    assert len(models) == MODELS + 1
    assert values(metrics)["loraloop_time_to_first_token_seconds_count", OTHER] == 50
    metrics.served(served("ocr@0"))
    assert values(metrics)["loraloop_time_to_first_token_seconds_count", "ocr@0"] == 2


def test_each_has_a_registry_of_its_own():
    """Two servers in one process count apart."""
    first, second = busy(), PrometheusMetrics()
    assert ("loraloop_requests_in_flight",) in values(second)
    assert values(second)["loraloop_requests_in_flight",] == 0
    assert values(first)["loraloop_requests_in_flight",] == 1


@pytest.mark.parametrize("metrics", [PrometheusMetrics(), busy()], ids=["fresh", "busy"])
def test_promtool_finds_nothing_to_say(metrics):
    """``promtool check metrics`` accepts names, types and help texts."""
    done = subprocess.run(["promtool", "check", "metrics"], input=metrics.text(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
