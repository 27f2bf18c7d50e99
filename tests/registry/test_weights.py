"""Tensors of a safetensors file."""

import json
import struct

import pytest

from loraloop.registry import weights


@pytest.mark.parametrize(
    ("dtype", "bits", "finite"),
    [
        ("BF16", 0x7F80, False),
        ("BF16", 0x7F7F, True),
        ("F16", 0xFC00, False),
        ("F16", 0xFBFF, True),
        ("F32", 0xFFC00000, False),
        ("F64", 0x7FF0000000000000, False),
        ("F8_E4M3", 0x7F, False),
        ("F8_E4M3", 0x7E, True),
        ("F8_E5M2", 0x7C, False),
        ("F8_E5M2", 0x7B, True),
        ("U8", 0xFF, True),
    ],
)
def test_every_dtype_is_looked_through(tmp_path, dtype, bits, finite):
    """The largest finite number passes and infinity or NaN is found in each float format, and integers are let be."""
    size = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}.get(dtype, 1)
    data = bytes(size) + bits.to_bytes(size, "little")
    text = json.dumps({"w": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert weights.not_finite(path) == ([] if finite else ["w"])
