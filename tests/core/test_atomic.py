"""Files and folders appear whole or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core import atomic
from waiting import spawn

chunks = st.lists(st.binary(max_size=2000), max_size=6)
MEGABYTE = 1 << 20


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def child(code):
    """Python in a process of its own."""
    return spawn([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)


@given(old=st.none() | st.binary(max_size=100), new=chunks)
def test_what_was_written_is_there_whole(tmp_path_factory, old, new):
    """The file holds every chunk in order, in place of what it held before, and nothing lies beside it."""
    folder = tmp_path_factory.mktemp("write")
    path = folder / "file"
    if old is not None:
        path.write_bytes(old)
    with atomic.write(path) as stream:
        for chunk in new:
            stream.write(chunk)
    assert path.read_bytes() == b"".join(new)
    assert names(folder) == ["file"]


@given(
    old=st.none() | st.binary(max_size=100),
    new=chunks,
    error=st.sampled_from([ValueError("bad row"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), SystemExit(1)]),
)
def test_an_error_while_writing_leaves_the_old_file(tmp_path_factory, old, new, error):
    """Any exception within the context is passed on; the old file, or none, is there and nothing beside it."""
    folder = tmp_path_factory.mktemp("write")
    path = folder / "file"
    if old is not None:
        path.write_bytes(old)

    def write_and_fail():
        with atomic.write(path) as stream:
            stream.writelines(new)
            raise error

    with pytest.raises(type(error)) as raised:
        write_and_fail()
    assert raised.value is error
    assert names(folder) == ([] if old is None else ["file"])
    assert old is None or path.read_bytes() == old


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("time", [1, 2])
def test_a_failing_system_call_leaves_the_old_or_the_new_file(tmp_path, monkeypatch, call, time):
    """When the disk fails at any call of the way, the file is the old one or the new one, with nothing beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    name = {"fsync": "fsync", "rename": "replace"}[call]
    real, calls = getattr(os, name), []

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) == time:
            raise OSError(errno.EIO, "the disk failed")
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, fail)
    failed = False
    try:
        with atomic.write(path) as stream:
            stream.write(b"new")
    except OSError:
        failed = True
    assert calls
    assert failed == (len(calls) >= time)
    renamed = not failed or (call == "fsync" and time == 2)
    assert path.read_bytes() == (b"new" if renamed else b"old")
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A write beyond what the system allows is an OSError; the old file is there and the space is free again."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    writer = child(f"""
        import resource
        from loraloop.core import atomic

        resource.setrlimit(resource.RLIMIT_FSIZE, ({MEGABYTE}, {MEGABYTE}))
        try:
            with atomic.write({str(path)!r}) as stream:
                stream.write(b"n" * {3 * MEGABYTE})
        except OSError as error:
            print(error.errno)
    """)
    assert writer.communicate()[0].strip() == str(errno.EFBIG)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    """Kill -9 after half of the content leaves the old file; the next write succeeds."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    writer = child(f"""
        import time
        from loraloop.core import atomic

        with atomic.write({str(path)!r}) as stream:
            stream.write(b"half")
            stream.flush()
            print("written", flush=True)
            time.sleep(600)
    """)
    assert writer.stdout.readline() == "written\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert path.read_bytes() == b"old"
    with atomic.write(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path, after):
    """A process that rewrites a file again and again and is killed leaves one of its contents, complete."""
    path = tmp_path / "file"
    writer = child(f"""
        from loraloop.core import atomic

        letter = 0
        while True:
            with atomic.write({str(path)!r}) as stream:
                for _ in range(64):
                    stream.write(bytes([65 + letter % 26]) * 16384)
            letter += 1
            print(letter, flush=True)
    """)
    for _ in range(after):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    content = path.read_bytes()
    assert len(content) == MEGABYTE
    assert len(set(content)) == 1


def test_readers_never_see_a_half_written_file(tmp_path):
    """Until the context is left, the path shows the old content, also after the new one was flushed."""
    path = tmp_path / "new" / "folder" / "file"
    with atomic.write(path) as stream:
        stream.write(b"first")
        stream.flush()
        assert not path.exists()
    with atomic.write(path) as stream:
        stream.write(b"second")
        stream.flush()
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second"


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_and_folders_have_the_modes_that_the_umask_gives(tmp_path, monkeypatch, mask):
    """Modes follow the umask, as if they had been made directly, and the process's umask is never touched."""
    change = os.umask
    before = change(mask)
    monkeypatch.setattr(os, "umask", lambda value: pytest.fail("other threads would make files without a umask"))
    try:
        with atomic.write(tmp_path / "file"), atomic.folder(tmp_path / "folder") as folder:
            (folder / "narrow").touch(0o600)  # as safetensors writes
            (folder / "program").touch(0o755)
    finally:
        change(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    expected = {"file": 0o666 & ~mask, "folder": 0o777 & ~mask, "narrow": 0o666 & ~mask}
    assert modes == {**expected, "program": 0o755 & ~mask | 0o666 & ~mask}


def fill(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("content")


def test_a_folder_appears_whole(tmp_path):
    """The folder is not there until the context is left, and then with everything in it."""
    target = tmp_path / "deep" / "target"
    with atomic.folder(target) as folder:
        fill(folder)
        assert not target.exists()
    assert (target / "inner" / "file").read_text() == "content"
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_an_error_leaves_no_folder(tmp_path, error):
    """An exception within the context is passed on and leaves neither the folder nor its beginning."""

    def fill_and_fail():
        with atomic.folder(tmp_path / "target") as folder:
            fill(folder)
            raise error

    with pytest.raises(type(error)) as raised:
        fill_and_fail()
    assert raised.value is error
    assert names(tmp_path) == []


@pytest.mark.parametrize("time", [1, 2, 3, 4])
def test_a_failing_disk_leaves_a_whole_folder_or_none(tmp_path, monkeypatch, time):
    """When the disk fails while contents, folder or its place are synced, the folder is whole or not there."""
    real, calls = os.fsync, []

    def fail(descriptor):
        calls.append(descriptor)
        if len(calls) == time:
            raise OSError(errno.EIO, "the disk failed")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk failed"), atomic.folder(tmp_path / "target") as folder:
        fill(folder)
    assert names(tmp_path) == (["target"] if time == 4 else [])
    assert time < 4 or (tmp_path / "target" / "inner" / "file").read_text() == "content"


def test_an_existing_folder_is_not_overwritten(tmp_path):
    """A folder that exists, also one that appears meanwhile, keeps what it holds."""
    fill(tmp_path)
    with pytest.raises(FileExistsError, match="exists already"), atomic.folder(tmp_path / "inner"):
        pytest.fail("entered the context")
    context = atomic.folder(tmp_path / "late")
    fill(context.__enter__())
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "other").write_text("theirs")
    with pytest.raises(OSError, match="late"):
        context.__exit__(None, None, None)
    assert names(tmp_path / "late") == ["other"]
    assert names(tmp_path) == ["inner", "late"]


def test_a_kill_leaves_no_folder(tmp_path):
    """Kill -9 in the middle leaves no folder of that name, and it can be made again."""
    target = tmp_path / "target"
    writer = child(f"""
        import time
        from loraloop.core import atomic

        with atomic.folder({str(target)!r}) as folder:
            (folder / "half").write_text("half")
            print("written", flush=True)
            time.sleep(600)
    """)
    assert writer.stdout.readline() == "written\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert not target.exists()
    with atomic.folder(target) as folder:
        fill(folder)
    assert names(target) == ["inner"]
    assert names(tmp_path) == ["target"]


def test_only_what_the_dead_left_is_removed(tmp_path):
    """Beginnings of the same folder go when their process has ended; those of a live one and of others stay."""
    target = tmp_path / "a"
    other = tmp_path / f".a.b.{'0' * 16}.part"
    left = tmp_path / f".a.{'0' * 16}.part"
    for each in (other, left):
        each.mkdir()
        (each / "half").touch()
    with atomic.folder(target) as mine:
        assert names(tmp_path) == sorted([mine.name, other.name])
        atomic.remove_abandoned(target)
        assert mine.is_dir()
        fill(mine)
    assert names(tmp_path) == [other.name, "a"]


def test_a_folder_that_is_taken_for_abandoned_is_made_anew(tmp_path, monkeypatch):
    """Where somebody removes a beginning before its lock is held, another one is made."""
    real, seen = fcntl.flock, []

    def late(descriptor, flags):
        if not seen:
            (left,) = tmp_path.iterdir()
            left.rmdir()
        seen.append(flags)
        real(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic.folder(tmp_path / "a") as folder:
        fill(folder)
    assert len(seen) == 2
    assert names(tmp_path) == ["a"]
