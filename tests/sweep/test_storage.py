"""Where studies are kept, and who may work on one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from loraloop.errors import ConfigError, MissingDependencyError
from loraloop.sweep import storage
from waiting import spawn, until


def test_the_default_is_a_file_of_the_folder(tmp_path, monkeypatch):
    """Without a URL the database is ``optuna.db`` in the folder, found from any working directory."""
    monkeypatch.chdir(tmp_path)
    assert storage.address(None, "mlruns") == f"sqlite:///{tmp_path}/mlruns/optuna.db"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("postgresql://me:secret@db:5433/studies", "postgresql+psycopg://me:secret@db:5433/studies"),
        ("postgresql+psycopg2://me@db/studies", "postgresql+psycopg://me@db/studies"),
    ],
)
def test_a_url_is_completed(given, used):
    """PostgreSQL is spoken through the one driver that loraloop asks for; a whole path stays as it is."""
    assert storage.address(given, "unused") == used


@pytest.mark.parametrize("given", ["mysql://db/x", "sqlite://", "sqlite:///:memory:", "redis://db"])
def test_other_databases_are_refused(given):
    """What trials in other processes cannot share, or sweeps cannot claim, is refused with the two that work."""
    with pytest.raises(ConfigError, match="a SQLite file or a PostgreSQL database"):
        storage.address(given, "unused")


def test_what_is_no_url_is_said():
    """A word instead of a URL is answered with the form of one."""
    with pytest.raises(ConfigError, match="no database URL: sqlite:///FILE or postgresql://"):
        storage.address("optuna", "unused")


def test_a_password_is_never_shown():
    """A message about a database leaves its password out."""
    url = storage.address("postgresql://me:secret@127.0.0.1:1/x", "unused")
    with pytest.raises(ConfigError) as caught:
        storage.connect(url)
    assert "me:***@127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up():
    """A server that accepts and says nothing ends in one sentence: the connection's own limit is in force."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = storage.address(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/x", "unused")
        with pytest.raises(ConfigError, match=r"hydra.sweeper.storage=.* cannot be used: .*time"):
            storage.connect(url)
    assert storage.CONNECT_SECONDS * 2 < 10


def test_a_missing_driver_names_its_extra(monkeypatch):
    """PostgreSQL without its driver is answered with the line that installs it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'loraloop\[postgres\]'"):
        storage.connect("postgresql+psycopg://me@127.0.0.1:1/driver")


@pytest.mark.parametrize("damage", ["text", "truncated", "schema"])
def test_a_damaged_file_is_one_sentence(damage, tmp_path, empty):
    """A file that is no database, half of one or one of another Optuna is named with what to do."""
    file = tmp_path / "optuna.db"
    if damage == "text":
        file.write_text("this is not a database, however long the text may be" * 100)
    elif damage == "truncated":
        file.write_bytes(empty.read_bytes()[: empty.stat().st_size // 3])
    else:
        import sqlite3

        file.write_bytes(empty.read_bytes())
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(ConfigError, match=rf"^hydra.sweeper.storage=sqlite:///{file} cannot be used: .*moved away"):
        storage.connect(storage.address(f"sqlite:///{file}", "unused"))


def claimed_elsewhere(url, study):
    """Another process that holds a study until it is killed."""
    code = (
        "import sys, time\nfrom loraloop.sweep import storage\n"
        "with storage.claim(sys.argv[1], sys.argv[2]):\n    print('claimed', flush=True)\n    time.sleep(600)"
    )
    process = spawn([sys.executable, "-c", code, url, study], stdout=subprocess.PIPE)
    assert process.stdout.readline() == "claimed\n"
    return process


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_study_has_one_sweep(kind, tmp_path, request):
    """A second sweep on a study is refused, another study is free, and a claim ends with its sweep, killed or not."""
    given = None if kind == "sqlite" else request.getfixturevalue("postgres")
    url = storage.address(given, str(tmp_path))
    study = f"claims-{os.getpid()}"
    with storage.claim(url, study):
        pass
    process = claimed_elsewhere(url, study)
    try:
        with (
            pytest.raises(ConfigError, match=f"study_name={study}: another sweep is at work on this study"),
            storage.claim(url, study),
        ):
            pass
        with storage.claim(url, f"{study}-other"):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    _claim_soon(url, study)
    with storage.claim(url, study):
        pass


def _claim_soon(url, study):
    """A server notices a killed client a moment later."""

    def free():
        try:
            with storage.claim(url, study):
                return True
        except ConfigError:
            return False

    until(free, f"the claim of {study} ends")
