"""A cycle's training, by one process at a time."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from loraloop.loop.lock import turn
from loraloop.workflows.retraining.training import RESULT, Retraining
from waiting import PATIENCE


def test_a_training_that_another_process_does_is_not_done_again(tmp_path: Path) -> None:
    """Who comes to a cycle's folder while another trains there touches nothing, and then finds what that one did."""
    unused: Any = None
    retraining = Retraining(parts=unused, max_forgetting=0.1)
    waits, failures = threading.Event(), []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waits.set()

    def train() -> None:
        try:
            retraining.train(unused, tmp_path, unused, unused, unused)
        except BaseException as error:
            failures.append(error)
            waits.set()

    logger, handler = logging.getLogger("loraloop.loop.lock"), Handler()
    logger.addHandler(handler)
    second = threading.Thread(target=train, daemon=True)
    with turn(tmp_path):
        second.start()
        assert waits.wait(PATIENCE)
        (tmp_path / RESULT).write_text('{"run": "1"}')
    second.join(PATIENCE)
    logger.removeHandler(handler)
    assert failures == []
    assert retraining.result(tmp_path) == {"run": "1"}
