"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file beside ``path``; on leaving without error it is synced and renamed to ``path``.

    On an error nothing is left behind and an earlier ``path`` stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(target)
    # The kernel applies the umask; reading it would mean to change it, for every thread of the process.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
        _sync(target.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside ``path``; on leaving without error it becomes ``path``.

    What a process that was killed left of the same folder is removed.

    Raises:
        FileExistsError: ``path`` exists already; nothing is overwritten.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    remove_abandoned(target)
    beside, lock = _locked(target)
    try:
        yield beside
        _share(beside)
        for file in (*sorted(beside.rglob("*")), beside):
            _sync(file)
        beside.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _share(made: Path) -> None:
    """Give files the permissions of their folder, which the kernel made by the umask: safetensors writes 0600."""
    allowed = stat.S_IMODE(made.stat().st_mode) & 0o666
    for each in made.rglob("*"):
        if each.is_file() and not each.is_symlink():
            each.chmod(stat.S_IMODE(each.stat().st_mode) | allowed)


def remove_abandoned(path: str | os.PathLike[str]) -> None:
    """Remove the beginnings of the folder ``path`` whose processes have ended; those that live keep theirs."""
    target = Path(path)
    beginning = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.part")
    found = [each for each in target.parent.glob(".*.part") if beginning.fullmatch(each.name)]
    for each in found:
        # A file system without locks refuses them, and what cannot be locked may be somebody's.
        with contextlib.suppress(OSError), _opened(each) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(each, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(target: Path) -> tuple[Path, int]:
    """A new folder beside ``target``, and the descriptor that holds its lock, which falls with the process."""
    while True:
        beside = _beside(target)
        beside.mkdir()
        try:
            descriptor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # somebody took it for abandoned before it was locked
            continue
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if beside.exists():
            return beside, descriptor
        os.close(descriptor)
