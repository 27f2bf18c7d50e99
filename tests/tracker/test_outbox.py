"""The queue in front of a backend that may fail."""

from __future__ import annotations

import json
import tempfile
import threading
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.tracker.outbox import BATCH_BYTES, LIMITS, Entry, Outbox

ENTRIES = st.lists(
    st.builds(
        Entry,
        kind=st.sampled_from(["metric", "param", "tag"]),
        key=st.text(max_size=5),
        value=st.text(max_size=20) | st.floats(allow_nan=False),
        timestamp=st.integers(0, 2**40),
        step=st.integers(0, 2**30),
    ),
    max_size=8,
)


def read(file: Path) -> list[Entry]:
    return [Entry(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def metrics(count: int) -> list[Entry]:
    return [Entry(kind="metric", key="train/loss", value=0.5, timestamp=1, step=step) for step in range(count)]


def silent(where: str, error: Exception) -> None:
    pass


class TestOutbox:
    """Entries on their way to a backend that may fail."""

    @settings(max_examples=40, deadline=None)
    @given(rounds=st.lists(st.tuples(ENTRIES, st.booleans()), max_size=6))
    def test_delivers_everything_once_in_order_however_often_the_backend_fails(self, rounds):
        """Entries put over any pattern of failures arrive in their order, and the file is gone at the end."""
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "entries.jsonl"
            sent, up = [], False

            def send(batch):
                if not up:
                    raise ConnectionError("down")
                sent.extend(batch)

            outbox = Outbox(send, file, silent)
            for entries, up in rounds:
                outbox.put(entries)
                assert outbox.flush() is (up or not (entries or outbox.failing))
            up = True
            assert outbox.flush()
            assert sent == [entry for entries, _ in rounds for entry in entries]
            assert not file.exists()

    def test_the_file_holds_what_is_not_sent(self, tmp_path):
        """After several failed flushes the file has each entry exactly once, in order."""

        def send(batch):
            raise ConnectionError("down")

        outbox = Outbox(send, tmp_path / "run" / "entries.jsonl", silent)
        for start in range(0, 9, 3):
            outbox.put(metrics(9)[start : start + 3])
            outbox.flush()
        assert read(tmp_path / "run" / "entries.jsonl") == metrics(9)

    def test_a_failure_in_the_middle_loses_nothing(self, tmp_path):
        """When the second of three batches fails, it and the third are in the file and are sent next time."""
        sent, failures = [], [2]

        def send(batch):
            if failures and len(sent) + 1 == failures[0]:
                raise ConnectionError("down")
            sent.append(batch)

        outbox = Outbox(send, tmp_path / "entries.jsonl", silent)
        entries = metrics(2 * LIMITS["metric"] + 1)
        outbox.put(entries)
        assert not outbox.flush()
        assert read(tmp_path / "entries.jsonl") == entries[LIMITS["metric"] :]
        failures.clear()
        assert outbox.flush()
        assert [entry for batch in sent for entry in batch] == entries

    def test_a_backend_that_fails_again_loses_nothing(self, tmp_path):
        """When it takes one batch of what is in the file and fails again, later entries are added to the file."""
        room = [0]

        def send(batch):
            if room[0] == 0:
                raise ConnectionError("down")
            room[0] -= 1

        outbox = Outbox(send, tmp_path / "entries.jsonl", silent)
        entries = metrics(LIMITS["metric"] + 20)
        outbox.put(entries[:-10])
        outbox.flush()
        room[0] = 1
        outbox.put(entries[-10:])
        outbox.flush()
        assert read(tmp_path / "entries.jsonl") == entries

    def test_what_is_refused_for_good_is_dropped_and_the_rest_arrives(self, tmp_path, caplog):
        """Of a batch with two refused entries all others arrive once, and each refused name is warned of once."""
        sent = []

        def send(batch):
            if any(entry.key == "refused" for entry in batch):
                raise ValueError("no such value")
            sent.extend(batch)

        outbox = Outbox(send, tmp_path / "entries.jsonl", silent, lambda error: isinstance(error, ValueError))
        entries = metrics(9)
        refused = Entry(kind="metric", key="refused", value=0.0, timestamp=1)
        outbox.put([*entries[:4], refused, *entries[4:], refused])
        assert outbox.flush()
        assert sent == entries
        assert [record.getMessage() for record in caplog.records] == [
            "The metric refused was refused and is not logged; the rest is. no such value"
        ]

    def test_what_another_process_left_is_loaded(self, tmp_path):
        """Entries of a file are sent before newer ones, without a line that was written in part, and the file goes."""
        file = tmp_path / "entries.jsonl"
        file.write_text("".join(entry.line() for entry in metrics(3))[:-30])
        sent = []
        outbox = Outbox(sent.extend, file, silent)
        assert outbox.load() == metrics(2)
        outbox.put(metrics(1))
        assert outbox.flush()
        assert sent == metrics(2) + metrics(1)
        assert not file.exists()

    def test_a_full_disk_keeps_the_entries_in_memory(self, tmp_path):
        """When even the file cannot be written the warning says so, and the entries arrive once the backend answers."""
        (tmp_path / "blocked").write_text("a file where the folder should be")
        sent, warnings, up = [], [], False

        def send(batch):
            if not up:
                raise ConnectionError("down")
            sent.extend(batch)

        outbox = Outbox(send, tmp_path / "blocked" / "entries.jsonl", lambda where, error: warnings.append(where))
        outbox.put(metrics(3))
        assert not outbox.flush()
        assert "in memory only" in warnings[0]
        up = True
        assert outbox.flush()
        assert sent == metrics(3)

    @settings(max_examples=30, deadline=None)
    @given(
        kinds=st.lists(st.sampled_from(["metric", "param", "tag", "status"]), max_size=400),
        size=st.sampled_from([1, 6000]),
    )
    def test_batches_stay_within_what_mlflow_takes(self, kinds, size):
        """No batch exceeds MLflow's limits on params, tags, entries and bytes."""
        batches = []
        outbox = Outbox(batches.append, Path("never.jsonl"), silent)
        outbox.put(Entry(kind=kind, key="k", value="é" * size, timestamp=0) for kind in kinds)
        assert outbox.flush()
        assert sum(map(len, batches)) == len(kinds)
        for batch in batches:
            counts = Counter(entry.kind for entry in batch)
            assert counts["param"] <= 100
            assert counts["tag"] <= 100
            assert len(batch) <= 1000
            assert sum(len(entry.line().encode()) for entry in batch) <= BATCH_BYTES

    def test_threads_may_put_while_another_flushes(self, tmp_path):
        """Entries put from four threads during flushes all arrive, each thread's in its order."""
        sent = []
        outbox = Outbox(sent.extend, tmp_path / "entries.jsonl", silent)

        def put(worker):
            for step in range(300):
                outbox.put([Entry(kind="metric", key=str(worker), value=0.0, timestamp=0, step=step)])

        threads = [threading.Thread(target=put, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            outbox.flush()
        outbox.flush()
        for worker in range(4):
            assert [entry.step for entry in sent if entry.key == str(worker)] == list(range(300))

    def test_a_torn_line_is_left_out_and_nothing_is_appended_to_it(self, tmp_path):
        """What a killed process wrote in part is dropped at the next start, and later entries are read again."""
        file = tmp_path / "entries.jsonl"
        whole = "".join(entry.line() for entry in metrics(3))
        file.write_bytes(whole.encode() + metrics(1)[0].line().encode()[:30] + b"\xc3")

        def send(batch):
            raise ConnectionError("down")

        outbox = Outbox(send, file, silent)
        assert outbox.load() == metrics(3)
        outbox.put(metrics(4)[3:])
        assert not outbox.flush()
        assert read(file) == metrics(4)
        assert Outbox(send, file, silent).load() == metrics(4)
