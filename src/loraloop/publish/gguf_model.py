"""A model of the Llama or Qwen family as GGUF: its settings and tensors under llama.cpp's names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from loraloop.errors import ConfigError
from loraloop.publish import gguf_quants, gguf_tokenizer
from loraloop.records import LoadedModel

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PretrainedConfig

Matrix = np.ndarray[Any, np.dtype[Any]]
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Model types of transformers that can be exported, and llama.cpp's name of each."""
LLAMA3 = "llama3"
"""Type of a rotation whose slow frequencies are slower still, from Llama 3.1 on."""
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q4_k_m": 15}
"""llama.cpp's numbers (``llama_ftype``)."""


def architecture(config: PretrainedConfig) -> str:
    """llama.cpp's name of an architecture.

    Raises:
        ConfigError: It is not exported, or has a rotary scaling or a sliding window, which are not.
    """
    known = ", ".join(ARCHITECTURES)
    if config.model_type not in ARCHITECTURES:
        raise ConfigError(
            f"publish=gguf exports the architectures {known}, and the base is {config.model_type}: take "
            "publish=merged, and convert its folder with llama.cpp's convert_hf_to_gguf.py"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if rope.get("rope_type", "default") not in ("default", LLAMA3) or window:
        raise ConfigError(
            f"publish=gguf exports {known} with plain or Llama 3's rotary positions, without a window; the base has "
            f"rope_type={rope.get('rope_type')}, sliding_window={window}: take "
            "publish=merged, and convert its folder with llama.cpp's convert_hf_to_gguf.py"
        )
    return ARCHITECTURES[config.model_type]


def write(file: Path, loaded: LoadedModel, dtype: str) -> None:
    """Write a model with its tokenizer and chat template; vectors stay float32."""
    import gguf

    config: Any = loaded.model.config
    writer = gguf.GGUFWriter(file, architecture(config))
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(file.stem)
    writer.add_file_type(FILE_TYPES[dtype])
    _settings(writer, config)
    gguf_tokenizer.add(writer, loaded.tokenizer, config.vocab_size)
    skipped = {"lm_head.weight"} if config.tie_word_embeddings else set()
    names = Names(config)
    if config.rope_parameters.get("rope_type") == LLAMA3:
        writer.add_tensor("rope_freqs.weight", _rope_factors(config))
    for key, value in loaded.model.state_dict().items():
        if key not in skipped:
            matrix = names.arranged(key, value.detach().cpu().float().numpy())
            add(writer, names.of(key), matrix, dtype, config.num_hidden_layers)
    finish(writer)


class Names:
    """llama.cpp's name and order of every tensor."""

    def __init__(self, config: Any) -> None:
        import gguf

        name = architecture(config)
        arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
        self._map = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        self._heads = heads if name == "llama" else {}

    def of(self, key: str) -> str:
        """The name.

        Raises:
            ConfigError: llama.cpp's architecture has no such tensor.
        """
        name = self._map.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ConfigError(f"publish=gguf does not know the weights {key} of the base: take publish=merged")
        return str(name)

    def arranged(self, key: str, value: Matrix) -> Matrix:
        """Rows in llama.cpp's order: for a Llama it rotates neighbours where transformers rotates halves."""
        heads = next((count for part, count in self._heads.items() if f".{part}" in key), None)
        if heads is None:
            return value
        split = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
        return split.swapaxes(1, 2).reshape(value.shape)


def add(writer: GGUFWriter, name: str, value: Matrix, dtype: str, layers: int = 0) -> None:
    """Add a tensor; what ``dtype`` cannot hold (vectors, rows that no block divides) takes a wider type.

    Args:
        writer: Of the file.
        name: llama.cpp's.
        value: In float.
        dtype: ``f32``, ``f16``, ``q8_0`` or ``q4_k_m``.
        layers: Of the model; ``q4_k_m`` keeps more bits of some.
    """
    import gguf

    wanted = gguf_quants.kind(name, value.shape[-1], dtype, layers)
    if value.ndim < 2 or wanted == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, np.ascontiguousarray(value, np.float32))
    elif wanted == gguf.GGMLQuantizationType.F16:
        writer.add_tensor(name, np.ascontiguousarray(value, np.float16))
    else:
        writer.add_tensor(name, gguf_quants.quantise(value, wanted), raw_dtype=wanted)


def finish(writer: GGUFWriter) -> None:
    """Write the file."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _rope_factors(config: Any) -> Matrix:
    """By what llama.cpp divides each frequency, so that it is transformers' scaled one."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = cast("Any", ROPE_INIT_FUNCTIONS[LLAMA3])(config, "cpu")
    width = 2 * len(scaled)
    plain = config.rope_parameters["rope_theta"] ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    found: Matrix = (plain / scaled.double().numpy()).astype(np.float32)
    return found


def _settings(writer: GGUFWriter, config: Any) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
