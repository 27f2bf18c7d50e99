"""A tick over several roles."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from loraloop.errors import DataError, LoraloopError, UnexpectedError
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.workflows.retraining.machine import RetrainingLoop


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("x"), 70), (KeyError("x"), 70), (IntegrityError("s", None, Exception()), 70),
                        (DataError("x"), 1)]
)  # fmt: skip
@pytest.mark.parametrize("step", ["_check", "proceed"])
def test_an_error_of_one_role_stops_no_other(tmp_path: Path, monkeypatch, error: Exception, code: int, step: str):
    """Whatever is raised for a role, the others go on, people are alerted, and the exit status says what kind it is."""
    went_on, judged, alerts = [], [], []
    unused: Any = None
    cycles: Any = SimpleNamespace(
        state=SimpleNamespace(open_cycles=list), alerts=SimpleNamespace(send=lambda *said: alerts.append(said))
    )
    policy: Any = SimpleNamespace(roles=("bad", "good"))
    loop = RetrainingLoop(
        policy=policy, cycles=cycles, training_sets=unused, trigger=unused, training=unused, rollouts=unused
    )

    def work(loop: RetrainingLoop, deployment: Any) -> None:
        if deployment.role == "bad":
            raise error

    monkeypatch.setattr(RetrainingLoop, "_check", lambda *_: None)
    monkeypatch.setattr(RetrainingLoop, "proceed", lambda _, deployment: went_on.append(deployment.role))
    monkeypatch.setattr(RetrainingLoop, "_judge_alone", lambda _, deployment: judged.append(deployment.role))
    monkeypatch.setattr(RetrainingLoop, step, work)
    if step == "proceed":
        monkeypatch.setattr(RetrainingLoop, "proceed", lambda _, deployment: (work(_, deployment), went_on.append(1)))
    with pytest.raises(LoraloopError) as raised:
        loop.tick({"bad": "one@champion", "good": "two@champion"}, {}, MlflowRegistry(folder=tmp_path))
    assert raised.value.exit_code == code
    assert isinstance(raised.value, UnexpectedError) is (code == 70)
    assert len(went_on) == 1
    assert judged == (["bad"] if step == "_check" else [])
    assert [title for title, _ in alerts] == ["loraloop bad: the loop cannot go on"]
