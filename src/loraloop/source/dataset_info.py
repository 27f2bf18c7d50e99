"""An entry of LLaMA-Factory's ``dataset_info.json`` (its data/README.md), and rows under the names that forms know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError
from loraloop.source.forms import Row

COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "messages": "conversations",
    "system": "system",
    "tools": "tools",
    "images": "images",
    "videos": "videos",
    "audios": "audios",
    "chosen": "chosen",
    "rejected": "rejected",
    "kto_tag": "kto_tag",
}
"""A key of ``columns``, and the column that the forms know it by."""
ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
SHAREGPT = {"messages": "conversations"}
"""The columns where an entry names none."""
TAGS = {
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"),
    "function_tag": ("function_call", "function_call"),
    "system_tag": ("system", "system"),
}
"""A key of ``tags``: the role where an entry names none, and the role that it stands for."""
KEYS = frozenset(
    {
        "file_name",
        "hf_hub_url",
        "formatting",
        "columns",
        "tags",
        "ranking",
        "subset",
        "split",
        "num_samples",
        "revision",
    }
)
IGNORED = frozenset({"ms_hub_url", "file_sha1"})
"""Keys that change nothing here: another hub's address of the same data, and a hash that nothing checks."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One dataset.

    Attributes:
        keys: As the file says them.
        unknown: Keys that are not read, by their dotted names.
    """

    name: str
    keys: Mapping[str, Any]
    columns: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def renamed(self, row: Row) -> Row:
        """A row with only the columns that the entry names, under the names and roles that the forms know.

        A dataset with a prompt alone is one of plain texts.
        """
        if set(self.columns) == {"prompt"}:
            return {"text": row.get(self.columns["prompt"])}
        named = {COLUMNS[key]: row.get(column) for key, column in self.columns.items()}
        if self.keys.get("formatting") == "sharegpt":
            named |= {
                name: self._told(named[name]) for name in ("conversations", "chosen", "rejected") if name in named
            }
        return named

    def _told(self, value: Any) -> Any:
        """Messages with the keys and roles of the forms; what is no message stays, for the forms to refuse."""
        if isinstance(value, list):
            return [self._told(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        role, content = self.tags.get("role_tag", "from"), self.tags.get("content_tag", "value")
        roles = {self.tags.get(tag, usual): stands for tag, (usual, stands) in TAGS.items()}
        said = value.get(role)
        others = {key: each for key, each in value.items() if key not in (role, content)}
        return {
            **others,
            "role": roles.get(said, said) if isinstance(said, str) else said,
            "content": value.get(content),
        }


def read(path: Path, name: str) -> Entry:
    """The entry of a name.

    Raises:
        ConfigError: The file is no registry, there is no such entry, or it names no data that can be read.
    """
    try:
        entries = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"source.path={path} is no dataset_info.json that can be read: {error}") from error
    if not isinstance(entries, dict):
        raise ConfigError(f"source.path={path} holds a {type(entries).__name__}, not datasets by their names")
    if name not in entries:
        raise ConfigError(f"source.name={name} is not in {path}{nearest(name, entries)}; it has {', '.join(entries)}")
    return _entry(path, name, entries[name])


def _entry(path: Path, name: str, keys: Any) -> Entry:
    if not isinstance(keys, dict):
        raise ConfigError(f"{path}: {name} is a {type(keys).__name__}, not an object")
    if not (keys.get("hf_hub_url") or keys.get("file_name")):
        raise ConfigError(f"{path}: {name} names neither file_name nor hf_hub_url, and nothing else is read")
    form = keys.get("formatting", "alpaca")
    if form not in ("alpaca", "sharegpt"):
        raise ConfigError(f"{path}: formatting={form} of {name} is neither alpaca nor sharegpt")
    told = keys.get("columns") or (SHAREGPT if form == "sharegpt" else ALPACA)
    tags = keys.get("tags") or {}
    for what, held in (("columns", told), ("tags", tags)):
        if not isinstance(held, dict) or not all(isinstance(each, str) for each in held.values()):
            raise ConfigError(f"{path}: {what} of {name} is no object of names")
    columns = {key: column for key, column in told.items() if key in COLUMNS}
    if form == "sharegpt":
        columns = SHAREGPT | columns
    unknown = (
        *(key for key in keys if key not in KEYS | IGNORED),
        *(f"columns.{key}" for key in told if key not in COLUMNS),
        *(f"tags.{key}" for key in tags if key not in TAGS and key not in ("role_tag", "content_tag")),
    )
    return Entry(name, keys, columns, tags, unknown)
