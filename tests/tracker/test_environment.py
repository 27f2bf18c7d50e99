"""What a run ran on."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from loraloop.tracker import environment


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one commit."""
    identity = ["-c", "user.name=loraloop", "-c", "user.email=loraloop@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "init", "-q", "-b", "main", tmp_path], check=True)
    (tmp_path / "conf.yaml").write_text("seed: 0\n")
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    subprocess.run(["git", "-C", tmp_path, *identity, "commit", "-q", "-m", "first"], check=True)
    return tmp_path


class TestGit:
    """The checkout that a run started in."""

    def test_names_commit_and_branch(self, checkout):
        """In a clean checkout the tags hold the commit, the branch, and that nothing is uncommitted."""
        command = ["git", "-C", checkout, "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert environment.git(checkout) == {
            "mlflow.source.git.commit": commit,
            "mlflow.source.git.branch": "main",
            "mlflow.source.git.dirty": "false",
        }

    def test_an_edit_makes_it_dirty(self, checkout):
        """An uncommitted change shows, so that a commit is never taken for what really ran."""
        (checkout / "conf.yaml").write_text("seed: 1\n")
        assert environment.git(checkout)["mlflow.source.git.dirty"] == "true"

    def test_outside_a_checkout_there_is_nothing(self, tmp_path, monkeypatch):
        """A folder that is in no checkout yields no tags and no error."""
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert environment.git(tmp_path) == {}

    def test_without_git_there_is_nothing(self, checkout, monkeypatch):
        """A machine without git yields no tags and no error."""
        monkeypatch.setenv("PATH", "")
        assert environment.git(checkout) == {}


class TestVersions:
    """Installed packages."""

    def test_are_those_installed(self):
        """Every package that shapes a result is tagged with its installed version."""
        for package in ("loraloop", "torch", "transformers", "peft", "trl", "bitsandbytes", "mlflow"):
            assert environment.versions()[f"version.{package}"] == importlib.metadata.version(package)


class TestHardware:
    """The machine."""

    def test_counts_usable_cores(self):
        """Cores are those that this process may use, and the processor and the memory are named."""
        facts = environment.hardware()
        assert facts["hardware.cores"] == str(len(os.sched_getaffinity(0)))
        assert facts["hardware.cpu"]
        assert float(facts["hardware.memory_gib"]) > 0

    def test_never_loads_torch(self):
        """Collecting every fact imports neither torch nor MLflow."""
        script = (
            "import sys, pathlib; from loraloop.tracker import environment; environment.tags(pathlib.Path.cwd());"
            "print(sorted({'torch', 'mlflow', 'transformers'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
