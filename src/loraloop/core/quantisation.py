"""Whether two bases of the same stored weights are quantised in the same way."""

from __future__ import annotations

from loraloop.records import Base

NAMES = {"quantization": "quantisation", "quantizer": "quantiser", "block_size": "block size", "dtype": "compute dtype"}


def mismatch(trained: Base, base: Base) -> str | None:
    """How the quantised weights of two bases differ, or ``None``; what a manifest of an earlier version lacks is equal.

    An adapter corrects the errors of the quantised weights that it was trained on: another quantiser, block size or
    compute type makes others.
    """
    pairs = {name: (getattr(trained, name), getattr(base, name)) for name in NAMES}
    wrong = [
        f"{NAMES[name]} {theirs} there and {ours} here"
        for name, (theirs, ours) in pairs.items()
        if theirs != ours and theirs is not None and ours is not None
    ]
    return ", ".join(wrong) or None
