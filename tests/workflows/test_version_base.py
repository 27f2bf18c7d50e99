"""The base of a version, found by what its manifest says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from loraloop.errors import ConfigError, ModelError
from loraloop.model.causal import CausalLM
from loraloop.workflows.version_base import VersionBase


@pytest.fixture(scope="module")
def trained():
    """The identity of the bundled base in NF4."""
    return CausalLM(name="bundled:tiny", quantization="nf4").load().base


@pytest.mark.parametrize(
    ("change", "words"),
    [({"block_size": 128}, "block size 128 there and 64 here"), ({"quantizer": "other"}, "quantiser other there and")],
)
def test_a_base_that_is_quantised_otherwise_is_not_given(trained, change, words):
    """Neither a merge nor a program that quantises the folder itself gets values that are not the training's."""
    for base in (trained, replace(trained, **change)):
        manifest = SimpleNamespace(base=base)
        given = VersionBase(SimpleNamespace(manifest=manifest))
        if base is trained:
            assert given.load(quantised=True).base == trained
            assert (given.folder() / "config.json").is_file()
            continue
        for ask in (lambda given=given: given.load(quantised=True), given.folder):
            with pytest.raises(ModelError, match=words):
                ask()


def test_a_base_that_would_not_fit_the_temporary_disk_is_not_written(trained, tmp_path, monkeypatch):
    """The base of a LoRA as GGUF is refused before its first byte where the disk is too small, with the way out."""
    plain = replace(trained, quantization="none", dtype="float32")
    given = VersionBase(SimpleNamespace(manifest=SimpleNamespace(base=plain)))
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=60 << 20))
    with pytest.raises(ConfigError, match=r"TMPDIR=.*bundled:tiny in f16 takes up to 65.7 MiB .* runtime.base=FILE"):
        given.gguf(tmp_path)
    assert not list(tmp_path.iterdir())
