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

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPLITS = {
    _SPLIT.replace("NUMBERS", r"\p{N}{1,3}"): "llama-bpe",
    _SPLIT.replace("NUMBERS", r"\p{N}"): "qwen2",
}
"""llama.cpp's names of the expressions by which Llama 3 and Qwen 2 to 3 split text (src/llama-vocab.cpp)."""


def pre_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """llama.cpp's name of the rule that splits text before the merges.

    Raises:
        ConfigError: The tokenizer is none that can be exported so that both programs give the same tokens.
    """
    rules = _rules(tokenizer)
    model, split = rules.get("model", {}), rules.get("pre_tokenizer") or {}
    # llama.cpp normalises nothing; Qwen's NFC leaves text as it is that is typed in the usual way.
    normal = (rules.get("normalizer") or {}).get("type") in (None, "NFC")
    if model.get("type") == "BPE" and not model.get("byte_fallback") and normal:
        found = _byte_level(split, model) if split.get("type") != "Sequence" else _sequence(split["pretokenizers"])
        if found:
            return found
    kind = "SentencePiece" if model.get("byte_fallback") or model.get("type") == "Unigram" else model.get("type")
    raise ConfigError(
        "publish=gguf publish.merge=true exports byte-level BPE tokenizers that split as those of GPT-2, SmolLM, Llama "
        f"3 and Qwen 2 to 3 do, and the base's is {kind} with {split.get('type')}: take publish.merge=false (the LoRA "
        "alone, beside the base's own GGUF), or publish=merged and llama.cpp's convert_hf_to_gguf.py"
    )


def _byte_level(split: dict[str, Any], model: dict[str, Any]) -> str | None:
    return "gpt-2" if _bytes(split) and (split["use_regex"] or not model["merges"]) else None


def _sequence(splits: list[dict[str, Any]]) -> str | None:
    if len(splits) != 2 or not _bytes(splits[1]):
        return None
    first, last = splits
    if first.get("type") == "Digits" and first.get("individual_digits") and last["use_regex"]:
        return "smollm"
    isolated = first.get("type") == "Split" and first.get("behavior") == "Isolated" and not first.get("invert")
    return SPLITS.get(first["pattern"].get("Regex", "")) if isolated and not last["use_regex"] else None


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
