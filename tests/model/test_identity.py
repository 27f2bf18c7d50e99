"""Hashes of models."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from loraloop.model import identity


@given(content=st.binary(max_size=100))
def test_a_file_has_the_sha256_of_its_content(tmp_path_factory, content):
    """A file's hash is SHA-256 of its bytes."""
    path = tmp_path_factory.mktemp("file") / "weights"
    path.write_bytes(content)
    assert identity.file(path) == hashlib.sha256(content).hexdigest()


def test_the_hubs_cache_is_not_read_again(tmp_path):
    """A blob of the hub's cache is already named by its SHA-256, which is taken as it is."""
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"gigabytes")
    link = tmp_path / "snapshots" / "model.safetensors"
    link.parent.mkdir()
    link.symlink_to(blob)
    assert identity.file(link) == "ab" * 32


def test_the_order_of_files_and_other_files_do_not_matter(tmp_path):
    """The hash is over the configuration and every safetensors file by name, not over what lies beside them."""
    for folder, order in ((tmp_path / "a", (1, 2)), (tmp_path / "b", (2, 1))):
        folder.mkdir()
        for number in order:
            (folder / f"model-{number}.safetensors").write_bytes(b"%d" % number)
        (folder / "config.json").write_text("{}")
    (tmp_path / "b" / "README.md").write_text("words")
    assert identity.weights(tmp_path / "a") == identity.weights(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text('{"hidden_size": 1}')
    assert identity.weights(tmp_path / "a") != identity.weights(tmp_path / "b")


def test_a_snapshot_is_named_by_its_commit(tmp_path):
    """The folder of a hub snapshot gives the revision; any other folder gives none."""
    assert identity.commit(tmp_path / ("0a" * 20)) == "0a" * 20
    assert identity.commit(tmp_path / "tiny") is None
    assert identity.commit(None) is None
