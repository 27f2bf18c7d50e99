"""The ledger: append-only, chained, whole after a crash."""

import json
import math
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.errors import RegistryError
from loraloop.registry.alias_history import active_version
from loraloop.registry.ledger import Ledger, moment
from waiting import spawn


def serving(ledger: Ledger, alias: str, at: str) -> int | None:
    """The version that an alias pointed at."""
    found = active_version(ledger.entries(), alias, moment(at))
    return found.version if found else None


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "loraloop.ledger.jsonl")
    ledger.append("register", 1, "first", alias="candidate")
    ledger.append("gate", 1, "passed", numbers={"candidate": 0.93, "base": math.nan})
    ledger.append("promote", 1, "gate", alias="champion")
    ledger.append("register", 2, "second", alias="candidate")
    ledger.append("promote", 2, "gate", alias="champion")
    return ledger


def test_entries_come_back_as_they_were_written(ledger):
    """Five events give five entries in order, a chain that verifies and strict JSON also for NaN."""
    entries = ledger.entries()
    assert [(entry.event, entry.version, entry.alias) for entry in entries] == [
        ("register", 1, "candidate"),
        ("gate", 1, None),
        ("promote", 1, "champion"),
        ("register", 2, "candidate"),
        ("promote", 2, "champion"),
    ]
    assert entries[1].numbers == {"candidate": 0.93, "base": "nan"}
    assert ledger.verify() == 5
    assert ledger.aliases() == {"candidate": 2, "champion": 2}
    assert all(entry.time.endswith("+00:00") for entry in entries)


def test_serving_answers_for_any_moment(ledger):
    """At each entry's time and just before it, the ledger names the version that had the role then."""
    times = [datetime.fromisoformat(entry.time) for entry in ledger.entries()]
    just_before = [(time - timedelta(microseconds=1)).isoformat() for time in times]
    assert serving(ledger, "champion", just_before[2]) is None
    assert serving(ledger, "champion", times[2].isoformat()) == 1
    assert serving(ledger, "champion", just_before[4]) == 1
    assert serving(ledger, "champion", times[4].isoformat()) == 2
    assert serving(ledger, "canary", times[4].isoformat()) is None


def test_times_are_read_in_any_zone(ledger):
    """A time without a zone is UTC, one with a zone is that moment, and anything else is refused."""
    time = datetime.fromisoformat(ledger.entries()[4].time)
    assert serving(ledger, "champion", time.replace(tzinfo=None).isoformat()) == 2
    assert serving(ledger, "champion", f"{(time + timedelta(hours=5)).replace(tzinfo=None).isoformat()}+05:00") == 2
    with pytest.raises(RegistryError, match="not an ISO 8601 time; write 2026"):
        serving(ledger, "champion", "yesterday")


@pytest.mark.parametrize("change", ["version", "reason", "remove", "swap"])
def test_altered_entries_are_found(ledger, change):
    """A changed field, a removed line and swapped lines each break the chain at the line that they touch."""
    lines = ledger.path.read_text().splitlines()
    if change == "remove":
        del lines[2]
    elif change == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines[2] = json.dumps(json.loads(lines[2]) | {change: 9})
    ledger.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RegistryError, match=r"line 3 .* does not continue"):
        ledger.verify()


def test_a_torn_entry_is_set_aside_and_told(ledger):
    """Half an entry left by a crash is kept in a file beside, the ledger says so and goes on."""
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + b'{"event": "promo')
    assert len(ledger.entries()) == 5
    ledger.append("gate", 2, "passed")
    assert ledger.path.with_name("loraloop.ledger.jsonl.torn").read_bytes() == b'{"event": "promo\n'
    assert [entry.event for entry in ledger.entries()[5:]] == ["recovered", "gate"]
    assert ledger.path.read_bytes().startswith(whole)
    assert ledger.verify() == 7


def test_a_damaged_line_stops_everything(ledger):
    """A line that is no entry is never skipped: reading and writing name it and the way out."""
    ledger.path.write_bytes(ledger.path.read_bytes() + b"\x00\x00\n")
    for call in (ledger.entries, lambda: ledger.append("gate", 1, "x")):
        with pytest.raises(RegistryError, match=r"line 6 is not a ledger entry; restore"):
            call()


def test_time_never_runs_backwards(ledger):
    """After an entry from the future (a clock set back) the next one carries the same time, so order stays time."""
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="microseconds")
    ledger.path.unlink()
    first = ledger.append("register", 1, "first", alias="candidate")
    ledger.path.write_text(ledger.path.read_text().replace(first.time, future))
    assert ledger.append("register", 2, "second", alias="candidate").time == future
    assert serving(ledger, "candidate", future) == 2


def test_a_full_disk_adds_nothing(ledger):
    """When the file cannot grow, the error says so and the ledger is byte for byte what it was."""
    whole = ledger.path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 40, before[1]))
        with pytest.raises(RegistryError, match=r"cannot write .*free some space"):
            ledger.append("gate", 2, "passed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert ledger.path.read_bytes() == whole


WRITER = """
import sys
from pathlib import Path
from loraloop.registry.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    ledger.append("register", number, "x" * 200, alias="candidate")
    print(number, flush=True)
"""


def _start(path, count):
    command = [sys.executable, "-c", WRITER, str(path), str(count)]
    return spawn(command, stdout=subprocess.PIPE)


def test_a_killed_writer_loses_nothing_that_it_reported(tmp_path):
    """After SIGKILL in the middle of writing, every entry whose append had returned is there and verifies."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    writer = _start(ledger.path, 1_000_000)
    reported = [writer.stdout.readline() for _ in range(50)]
    writer.kill()
    reported += writer.stdout.readlines()
    writer.wait()
    written = [entry.version for entry in ledger.entries()]
    assert written == list(range(len(written)))
    assert len(written) >= len([line for line in reported if line.endswith("\n")]) >= 50
    ledger.append("gate", None, "after the crash")
    assert ledger.verify() > len(written)


def test_writers_of_several_processes_take_turns(tmp_path):
    """Three processes that append 40 entries each leave one unbroken chain of 120."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for writer in [_start(ledger.path, 40) for _ in range(3)]:
        writer.communicate()
        assert writer.returncode == 0
    assert ledger.verify() == 120


text = st.text(st.characters(), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(reason=text, event=text, numbers=st.dictionaries(text, values, max_size=3))
def test_whatever_is_written_verifies(tmp_path_factory, reason, event, numbers):
    """Any text and any numbers, line breaks and lone surrogates included, become one line that verifies."""
    ledger = Ledger(tmp_path_factory.mktemp("any") / "ledger.jsonl")
    ledger.append(event, 1, reason, numbers=numbers)
    ledger.append(event, 1, reason, numbers=numbers)
    assert ledger.verify() == 2
    assert ledger.path.read_bytes().count(b"\n") == 2
    assert ledger.entries()[0].reason == reason
