"""A byte-level BPE tokenizer and its chat template in GGUF's metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from loraloop.core.tokens import encode_prompt
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

NEVER = "<none> <none>"
"""A merge of two texts that no byte stands for; llama.cpp does not load a tokenizer without merges."""


def pre_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """llama.cpp's name of the rule that splits text before the merges.

    Raises:
        ConfigError: The tokenizer is none that can be exported so that both programs give the same tokens.
    """
    rules = _rules(tokenizer)
    model, split = rules.get("model", {}), rules.get("pre_tokenizer") or {}
    plain = model.get("type") == "BPE" and not model.get("byte_fallback") and not rules.get("normalizer")
    if plain and _bytes(split) and (split["use_regex"] or not model["merges"]):
        return "gpt-2"
    if plain and split.get("type") == "Sequence":
        first, *rest = split["pretokenizers"]
        digits = first.get("type") == "Digits" and first.get("individual_digits")
        if digits and len(rest) == 1 and _bytes(rest[0]) and rest[0]["use_regex"]:
            return "smollm"
    raise ConfigError(
        "publish=gguf publish.merge=true exports byte-level BPE tokenizers that split as GPT-2 or SmolLM do, and the "
        f"base's is {model.get('type')} with {split.get('type')}: take publish.merge=false (the LoRA alone, "
        "beside the base's own GGUF), or publish=merged and llama.cpp's convert_hf_to_gguf.py"
    )


def require(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer can be exported.

    Raises:
        ConfigError: It cannot.
    """
    pre_tokenizer(tokenizer)


def add(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Add vocabulary, merges, special tokens and chat template.

    Args:
        writer: Of the file.
        tokenizer: The base's.
        size: Rows of the embedding; rows without a token become unused ones.
    """
    from gguf import TokenType

    rules = _rules(tokenizer)
    special = {each["content"]: each["special"] for each in rules["added_tokens"]}
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(size)]
    kinds = [TokenType.UNUSED if number not in by_id else _kind(by_id[number], special) for number in range(size)]
    merges = [" ".join(each) if isinstance(each, list) else each for each in rules["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges or [NEVER])
    _special(writer, tokenizer)
    if tokenizer.chat_template:
        writer.add_chat_template(str(tokenizer.chat_template))


def _special(writer: GGUFWriter, tokenizer: Any) -> None:
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "unk": tokenizer.unk_token_id}
    for name, number in (ids | {"pad": tokenizer.pad_token_id}).items():
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    begins = tokenizer.bos_token_id is not None and encode_prompt(tokenizer, "a")[0] == tokenizer.bos_token_id
    writer.add_add_bos_token(begins)
    writer.add_add_space_prefix(False)


def _kind(token: str, special: dict[str, bool]) -> int:
    from gguf import TokenType

    if token not in special:
        return TokenType.NORMAL
    return TokenType.CONTROL if special[token] else TokenType.USER_DEFINED


def _bytes(split: dict[str, Any]) -> bool:
    return bool(split.get("type") == "ByteLevel" and not split.get("add_prefix_space"))


def _rules(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return dict(json.loads(backend.to_str())) if backend is not None else {}
