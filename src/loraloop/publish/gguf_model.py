"""A model of the Llama family as GGUF: its settings and tensors under llama.cpp's names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloop.errors import ConfigError
from loraloop.publish import gguf_quants, gguf_tokenizer
from loraloop.records import LoadedModel

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PretrainedConfig

Matrix = np.ndarray[Any, np.dtype[Any]]
ARCHITECTURES = {"llama": "llama", "mistral": "llama"}
"""Model types of transformers that can be exported, and llama.cpp's name of each."""
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
    if rope.get("rope_type", "default") != "default" or getattr(config, "sliding_window", None):
        raise ConfigError(
            f"publish=gguf exports {known} with plain rotary positions and without a sliding window, and the base has "
            f"rope_type={rope.get('rope_type')}, sliding_window={getattr(config, 'sliding_window', None)}: take "
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
    for key, value in loaded.model.state_dict().items():
        if key not in skipped:
            matrix = names.arranged(key, value.detach().cpu().float().numpy())
            add(writer, names.of(key), matrix, dtype, config.num_hidden_layers)
    finish(writer)


class Names:
    """llama.cpp's name and order of every tensor."""

    def __init__(self, config: Any) -> None:
        import gguf

        self._map = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
        self._heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}

    def of(self, key: str) -> str:
        """The name.

        Raises:
            ConfigError: llama.cpp's Llama has no such tensor.
        """
        name = self._map.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ConfigError(f"publish=gguf does not know the weights {key} of the base: take publish=merged")
        return str(name)

    def arranged(self, key: str, value: Matrix) -> Matrix:
        """Rows in llama.cpp's order: it rotates neighbours where transformers rotates halves."""
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
