"""The loop's metrics, counted from its tables at every scrape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from loraloop.core.transitions import ENDS
from loraloop.loop.schema import cycles, decisions, rollouts, ticks

Sample = tuple[str, dict[str, str], float]
FRESH = timedelta(days=1)
"""How long a rollout that ended is still in the metrics, so that an alert on a failed one can fire."""


def read(connection: Connection) -> list[Sample]:
    """All samples: ``loraloop_loop_*`` per role, ``loraloop_canary_*`` per recent rollout, and each ledger's state."""
    return [*_cycles(connection), *_decisions(connection), *_ticks(connection), *_canaries(connection)]


def _cycles(connection: Connection) -> list[Sample]:
    by = sa.select(cycles.c.role, cycles.c.state, sa.func.count()).group_by(cycles.c.role, cycles.c.state)
    found: dict[tuple[str, str], int] = {(role, state): count for role, state, count in connection.execute(by)}
    roles = {role for role, _ in found} | set(connection.scalars(sa.select(ticks.c.role)))
    samples: list[Sample] = []
    for role in sorted(roles):
        for outcome in ENDS:
            labels = {"role": role, "outcome": outcome}
            samples.append(("loraloop_loop_cycles_total", labels, float(found.get((role, outcome), 0))))
        state = next((state for whose, state in found if whose == role and state not in ENDS), "idle")
        samples.append(("loraloop_loop_state", {"role": role, "state": state}, 1.0))
    return samples


def _decisions(connection: Connection) -> list[Sample]:
    by = sa.select(decisions.c.role, decisions.c.event, sa.func.count()).group_by(decisions.c.role, decisions.c.event)
    return [
        ("loraloop_loop_decisions_total", {"role": role, "decision": event}, float(count))
        for role, event, count in connection.execute(by.order_by(decisions.c.role, decisions.c.event))
    ]


def _ticks(connection: Connection) -> list[Sample]:
    samples: list[Sample] = []
    intact: dict[str, bool] = {}
    for row in connection.execute(sa.select(ticks).order_by(ticks.c.role)):
        seconds = datetime.fromisoformat(row.time).timestamp()
        samples.append(("loraloop_loop_tick_timestamp_seconds", {"role": row.role}, seconds))
        intact[row.model] = intact.get(row.model, True) and row.intact
    return samples + [("loraloop_ledger_intact", {"model": model}, float(held)) for model, held in intact.items()]


def _canaries(connection: Connection) -> list[Sample]:
    since = (datetime.now(UTC) - FRESH).isoformat(timespec="milliseconds")
    recent = rollouts.c.ended.is_(None) | (rollouts.c.ended > since)
    latest: dict[str, Any] = {}
    for row in connection.execute(sa.select(rollouts).where(recent).order_by(rollouts.c.began)):
        latest[row.role] = row
    samples: list[Sample] = []
    for role, row in sorted(latest.items()):
        judged = row.judged or {}
        failing = judged.get("action") in ("rollback", "stop")
        samples.append(("loraloop_canary_share", {"role": role}, 0.0 if row.ended else row.share))
        samples.append(("loraloop_canary_failing", {"role": role}, float(failing)))
        for arm, figures in ({} if row.ended else judged.get("arms", {})).items():
            labels = {"role": role, "arm": arm}
            for name, key in (("sessions", "sessions"), ("success_ratio", "success"), ("stars", "stars")):
                if figures.get(key) is not None:
                    samples.append((f"loraloop_canary_{name}", labels, float(figures[key])))
    return samples
