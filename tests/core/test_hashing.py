"""Hashes of files, bytes and values."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from loraloop.core.hashing import sha256, sha256_json


@given(content=st.binary(max_size=100))
def test_a_file_hashes_like_its_bytes(tmp_path_factory, content):
    """A file's hash and that of its bytes are SHA-256 of the content."""
    path = tmp_path_factory.mktemp("file") / "weights"
    path.write_bytes(content)
    assert sha256(path) == sha256(content) == hashlib.sha256(content).hexdigest()


def test_the_order_of_keys_does_not_matter():
    """Equal JSON values have equal hashes, other values have others."""
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": "1"})
