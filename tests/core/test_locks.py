"""Locks between processes and threads."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa

from loraloop.core.locks import advisory_lock, file_lock, required_lock
from loraloop.errors import RegistryError


def held_elsewhere(path):
    """Another process that holds the file's lock until it is killed."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom loraloop.core.locks import file_lock\n"
        "with file_lock(Path(sys.argv[1]), 0):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_falls_with_its_process(tmp_path):
    """A file that another process locks is not free, a required lock says what to do, and a kill frees it."""
    path = tmp_path / "new" / ".lock"
    process = held_elsewhere(path)
    with file_lock(path, 0) as free:
        assert not free
    with (
        pytest.raises(RegistryError, match=rf"another process has held {path} for 0 s: end it"),
        required_lock(path, 0, RegistryError),
    ):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with file_lock(path, 0) as free:
        assert free


def test_a_thread_takes_a_reentrant_lock_twice_and_another_thread_does_not(tmp_path):
    """A reentrant lock is one thread's; a plain lock is held once."""
    path, seen = tmp_path / ".lock", []

    def look() -> None:
        with file_lock(path, 0, reentrant=True) as free:
            seen.append(free)

    with file_lock(path, 0, reentrant=True) as first, file_lock(path, 0, reentrant=True) as second:
        other = threading.Thread(target=look)
        other.start()
        other.join()
        assert (first, second, seen) == (True, True, [False])
    with file_lock(path, 0) as first, file_lock(path, 0) as second:
        assert (first, second) == (True, False)


def test_an_advisory_lock_has_one_session(postgres):
    """A second session is refused at once or after its time, and gets the lock when the first has left."""
    engine = sa.create_engine(sa.make_url(postgres).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.connect() as one, engine.connect() as other:
        with advisory_lock(one, "a name", 0) as free:
            assert free
            for seconds in (0, 0.05):
                with advisory_lock(other, "a name", seconds) as also:
                    assert not also
            with advisory_lock(other, "another name", 0) as also:
                assert also
        with advisory_lock(other, "a name", 0.05) as free:
            assert free
