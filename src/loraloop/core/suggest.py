"""Sentences for a mistyped override: what was written, which names there are, which one was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from loraloop.core.overrides import assign, shell

OTHER_NAMES = {
    "rank": "r", "lora_rank": "r", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "targets",
    "bs": "batch_size", "per_device_train_batch_size": "batch_size",
    "ga": "accumulation", "grad_accum": "accumulation", "gradient_accumulation_steps": "accumulation",
    "lr_scheduler": "schedule", "lr_scheduler_type": "schedule", "warmup_ratio": "warmup",
    "grad_clip": "max_grad_norm", "clip": "max_grad_norm",
    "seq_len": "max_length", "max_seq_length": "max_length", "cutoff_len": "max_length",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "save_total_limit": "keep_checkpoints",
    "precision": "dtype", "torch_dtype": "dtype", "quant": "quantization", "load_in_4bit": "quantization",
    "attn_implementation": "attention", "model_name_or_path": "name", "test_size": "validation_share",
}  # fmt: skip
"""Names that other libraries give to our keys, where neither spelling nor initials lead there."""

FUNCTIONS = "choice|range|interval|glob|sort|shuffle|tag|extend_list|int|float|str|bool|json_str"
"""Of Hydra's grammar."""
CLOSING = {"[": "]", "{": "}", "(": ")"}


def nearest(word: str, names: Iterable[str], parent: str = "") -> str:
    """``" (did you mean PARENT.NAME?)"`` for the name that was probably meant, or an empty string.

    A name is meant by its other names in the field, its initials (``lr`` of ``learning_rate``), a similar spelling, the
    beginning of one of its words (``accum``), or a word without some of its letters (``ckpt``), in this order.
    """
    known = list(names)
    meant = _meant(word.lower(), known) if word else None
    return f" (did you mean {parent}{'.' if parent else ''}{meant}?)" if meant else ""


def _meant(word: str, names: Sequence[str]) -> str | None:
    if (other := OTHER_NAMES.get(word)) in names:
        return other
    if initials := [name for name in names if "_" in name and _initials(name) == word]:
        return initials[0]
    if close := difflib.get_close_matches(word, names, n=1, cutoff=0.6):
        return close[0]
    if len(word) < 3:
        return None
    words = [(name, part) for name in names for part in re.split(r"[_.]", name.lower())]
    begun = [name for name, part in words if part.startswith(word)]
    shortened = [name for name, part in words if part[:1] == word[0] and _subsequence(word, part)]
    return next(iter([*begun, *shortened]), None)


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.lower().split("_"))


def _subsequence(word: str, whole: str) -> bool:
    letters = iter(whole)
    return all(letter in letters for letter in word)


def first_line(error: Exception) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Error parsing override")]
    return (said or lines or [type(error).__name__])[0]


def options(conf: Path, group: str) -> list[str]:
    """The choices of a config group."""
    return sorted(file.stem for file in (conf / group).glob("*.yaml"))


def sentence(override: str, cause: Exception, folders: Sequence[Path], keys: Sequence[str]) -> str:
    """Why ``override`` cannot be used, and what to write instead.

    Args:
        override: As written on the command line, such as ``trainer.lerning_rate=1``.
        cause: What Hydra raised for it.
        folders: Where config groups are: the package's folder and the person's own.
        keys: Every dotted key of the composed configuration.
    """
    key, _, value = override.partition("=")
    name = key.lstrip("+~").partition("@")[0]
    there = sorted({choice for folder in folders for choice in options(folder, name)})
    if there and "Could not find" in str(cause):
        return f"{override}: there is no {name} named {value!r}{nearest(value, there)}; there are {', '.join(there)}"
    if "Ambiguous value" in str(cause):
        return (
            f"{override}: several values are a run each with -m (--multirun); one list of them is {key}=[{value}], "
            f"one text {shell(assign(key, value))}"
        )
    if re.search(r"mismatched|extraneous|no viable|LexerNoViable|token recognition|missing", str(cause)):
        return _unreadable(override, key, value)
    if key.startswith("~") and "Could not delete" in str(cause):
        return f"{name}: the stage has no such key, so that there is nothing to take out or to replace"
    if key.startswith("+"):
        return f"{override}: {first_line(cause)}"
    if name not in keys and there:
        return f"{override}: {name} is added to what there is: write +{override}"
    if name not in keys:
        return f"{override}: there is no key {name}{_known(name, keys)}"
    return f"{override}: {first_line(cause)}"


def _unreadable(override: str, key: str, value: str) -> str:
    """What to write in place of an override that Hydra's grammar does not read."""
    if "=" not in override or not re.fullmatch(r"[+~]*[\w./@-]+", key):
        return f"{override}: write KEY=VALUE, such as trainer.epochs=1; loraloop --help lists stages and groups"
    begun = re.match(rf"[\[{{]|(?:{FUNCTIONS})\(", value)
    is_open = begun and value.count(begun[0][-1]) > value.count(CLOSING[begun[0][-1]])
    close = f"; or close the {begun[0][-1]} that it begins with" if begun and is_open else ""
    return (
        f"{override}: the value holds a character with a meaning of its own in Hydra's grammar; "
        f"quote it like this: {shell(assign(key, value))}{close}"
    )


def _known(name: str, keys: Sequence[str]) -> str:
    """The key that was probably meant, and the keys that stand beside it."""
    parent, _, last = name.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in keys if other.rpartition(".")[0] == parent]
    if not siblings:
        return nearest(name, keys)
    if not parent and (inside := [key for key in keys if key.rpartition(".")[2] == name and key.count(".") == 1]):
        return f" (did you mean {inside[0]}?)"
    shown = [other for other in siblings if other != "_target_"]
    return f"{nearest(last, shown, parent)}; {parent or 'the top level'} has {', '.join(shown) or 'no keys'}"
