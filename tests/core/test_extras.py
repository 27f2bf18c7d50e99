"""Optional imports."""

from __future__ import annotations

import json

import pytest

from loraloop.core.extras import require
from loraloop.errors import ConfigError, MissingDependencyError


def test_a_module_that_is_there_is_returned():
    """An installed module is imported and returned, a submodule too."""
    assert require("json", "anything") is json
    assert require("json.decoder", "anything") is json.decoder


@pytest.mark.parametrize("module", ["a_package_that_nobody_has", "a_package_that_nobody_has.inner.part"])
def test_a_missing_module_says_what_to_install(module):
    """A missing package is a configuration error that holds the line which installs it."""
    with pytest.raises(MissingDependencyError) as error:
        require(module, "s3")
    assert str(error.value) == f"{module} is not installed: pip install 'loraloop[s3]'"
    assert isinstance(error.value, ConfigError)
    assert error.value.exit_code == 2


def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    """A package that is there and lacks a module of its own is reported by that module's name."""
    (tmp_path / "half_installed.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'a_package_that_nobody_has'"):
        require("half_installed", "s3")
