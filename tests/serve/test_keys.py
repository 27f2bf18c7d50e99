"""Keys at rest and in use."""

from __future__ import annotations

import json
import stat

import pytest

from loraloop.errors import ConfigError
from loraloop.serve.keys import Keys


def test_a_key_is_found_by_its_text_alone(tmp_path):
    """The text that was shown once opens; anything else does not."""
    keys = Keys(tmp_path / "keys.json")
    secret = keys.add("ci", ["infer"])
    keys.add("other", ["admin"])
    assert keys.find(secret).name == "ci"
    assert keys.find(secret[:-1]) is None
    assert keys.find("") is None


def test_only_hashes_are_kept(tmp_path):
    """The file holds no key, and nobody but its owner reads it."""
    file = tmp_path / "keys.json"
    secret = Keys(file).add("ci", ["infer"])
    assert secret not in file.read_text()
    assert secret.removeprefix("ll-") not in file.read_text()
    assert len(json.loads(file.read_text())[0]["sha256"]) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_revoked_key_ends_at_once(tmp_path):
    """A running server sees that another process took a key back."""
    running, other = Keys(tmp_path / "keys.json"), Keys(tmp_path / "keys.json")
    secret = other.add("ci", ["infer"])
    assert running.find(secret)
    other.revoke("ci")
    assert running.find(secret) is None


def test_scopes(tmp_path):
    """A key opens what one of its scopes opens; admin opens everything."""
    keys = Keys(tmp_path / "keys.json")
    ci = keys.find(keys.add("ci", ["infer", "feedback"]))
    root = keys.find(keys.add("root", ["admin"]))
    assert ci.opens(["infer"])
    assert ci.opens(["registry", "feedback"])
    assert not ci.opens(["admin"])
    assert not ci.opens([])
    assert root.opens(["registry"])
    assert root.opens([])


def test_a_name_is_given_once(tmp_path):
    """A second key of a name is refused, and so is taking back one that is not there."""
    keys = Keys(tmp_path / "keys.json")
    keys.add("ci", ["infer"])
    with pytest.raises(ConfigError, match="revoke=ci"):
        keys.add("ci", ["infer"])
    with pytest.raises(ConfigError, match="there are ci"):
        keys.revoke("cd")


@pytest.mark.parametrize(
    "text", ["", "{}", '[{"name": "a"}]', '[{"name":"a","sha256":"x","scopes":["root"],"created":""}]']
)
def test_a_damaged_file_is_an_error(tmp_path, text):
    """A file that cannot be understood opens nothing: it is an error that names it."""
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"keys\.json is damaged"):
        Keys(file).all()
