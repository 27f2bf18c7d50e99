"""A server notices what another process erased, and its backend forgets it."""

from __future__ import annotations

from collections.abc import Iterator

from loraloop.errors import ModelError
from loraloop.serve.forgetting import forgetting
from waiting import until


def test_each_erasure_is_forgotten_once(caplog):
    """What was erased before is no reason, each erasure after is one, and a failure is told once and tried again."""
    erased, calls = [3], []
    faults: Iterator[Exception | None] = iter([ModelError("busy"), ModelError("busy"), None, None])

    def forget() -> None:
        calls.append(erased[0])
        if (fault := next(faults)) is not None:
            raise fault

    with forgetting(lambda: erased[0], forget, seconds=0.001):
        erased[0] = 4
        until(lambda: len(calls) == 3, "it was forgotten in the end")
        erased[0] = 6
        until(lambda: len(calls) == 4, "the next erasure is forgotten too")
    assert calls == [4, 4, 4, 6]
    assert [record.message for record in caplog.records] == [
        "what the backend keeps of erased sessions is not forgotten yet: busy"
    ]
