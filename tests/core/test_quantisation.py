"""Comparing how bases are quantised."""

from dataclasses import replace

from loraloop.core.quantisation import mismatch
from loraloop.records import Base

NF4 = Base(
    name="b",
    revision=None,
    sha256="",
    tokenizer_sha256="",
    chat_template_sha256=None,
    quantization="nf4",
    dtype="bfloat16",
    quantizer="bitsandbytes",
    block_size=64,
)


def test_another_quantiser_block_size_or_compute_type_is_told():
    """Each of them is named with both values; what an earlier manifest lacks counts as equal."""
    assert mismatch(NF4, NF4) is None
    assert mismatch(replace(NF4, quantizer=None, block_size=None), NF4) is None
    found = mismatch(NF4, replace(NF4, block_size=128, dtype="float32", quantization="nf4-double"))
    for part in ("block size 64 there and 128 here", "compute dtype bfloat16 there and float32", "nf4 there and nf4-d"):
        assert part in found
