"""Quantised matrices in GGUF: ``q8_0`` by the library ``gguf``, ``q4_k_m`` by llama.cpp's own code."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloop.core.extras import require
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

Matrix = np.ndarray[Any, np.dtype[Any]]
BLOCK, SUPERBLOCK = 32, 256
QUANTISE = "ggml_quantize_chunk"


def check(dtype: str) -> None:
    """See that the tool for a type is there.

    Raises:
        MissingDependencyError: ``gguf`` or, for ``q4_k_m``, ``xllamacpp`` is not installed.
        ConfigError: The installed ``xllamacpp`` hides llama.cpp's quantiser.
    """
    require("gguf", "gguf")
    if dtype == "q4_k_m" and not hasattr(_library(), QUANTISE):
        raise ConfigError("publish.dtype=q4_k_m: this xllamacpp hides llama.cpp's quantiser; take publish.dtype=q8_0")


def kind(name: str, columns: int, dtype: str, layers: int) -> GGMLQuantizationType:
    """The type of a matrix; rows that no block divides take a wider one.

    ``q4_k_m`` is the mixture of llama.cpp (src/llama-quant.cpp): six bits for a tied embedding or the output, and for
    half of the values and of what leaves the feed-forward layers.
    """
    from gguf import GGMLQuantizationType as Type

    if dtype == "f32":
        return Type.F32
    if dtype == "f16" or columns % BLOCK:
        return Type.F16
    if dtype == "q8_0":
        return Type.Q8_0
    layer = int(found[1]) if (found := re.match(r"blk\.(\d+)\.(attn_v|ffn_down)\.", name)) else None
    more = (layer is None and not name.startswith("blk.")) or (layer is not None and _more_bits(layer, layers))
    if columns % SUPERBLOCK:
        return Type.Q8_0 if more else Type.Q5_0
    return Type.Q6_K if more else Type.Q4_K


def quantise(value: Matrix, kind: GGMLQuantizationType) -> Matrix:
    """The bytes of a matrix, one line a row.

    Raises:
        ConfigError: llama.cpp did not write as many bytes as the type has.
    """
    import gguf

    rows, columns = value.shape
    source = np.ascontiguousarray(value, np.float32)
    if kind == gguf.GGMLQuantizationType.Q8_0:
        found: Matrix = gguf.quants.quantize(source, kind)
        return found
    block, size = gguf.GGML_QUANT_SIZES[kind]
    made = np.empty((rows, columns // block * size), np.uint8)
    function = getattr(_library(), QUANTISE)
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    written = function(int(kind), source.ctypes.data, made.ctypes.data, 0, rows, columns, None)
    if written != made.nbytes:
        raise ConfigError(f"llama.cpp wrote {written} bytes of {kind.name} and {made.nbytes} were due: take q8_0")
    return made


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(require("xllamacpp.xllamacpp", "gguf").__file__)
