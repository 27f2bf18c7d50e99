"""Conversations by which it is seen that a chat template gives the same tokens in another program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Chat = tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]
_TOOL = {
    "type": "function",
    "function": {
        "name": "open_vault",
        "description": "Open a vault by its code.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string"}, "tries": {"type": "integer"}},
            "required": ["code"],
        },
    },
}
_PLAIN = {"type": "function", "function": {"name": "list_vaults", "parameters": {"type": "object", "properties": {}}}}
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "open_vault", "arguments": '{"code": "HTHH-0110", "tries": 2}'},
}
CHATS: tuple[Chat, ...] = (
    ([{"role": "user", "content": "Twelve vaults: which one opens?"}], ()),
    (
        [
            {"role": "system", "content": "You open vaults. Answer in one line."},
            {"role": "user", "content": "Is it \u00fcberhaupt open, 2 > 1?"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "And now?\nSay yes or no."},
        ],
        (),
    ),
    (
        [
            {"role": "system", "content": "You open vaults."},
            {"role": "user", "content": "Open vault HTHH-0110."},
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"open": true}'},
        ],
        (_TOOL, _PLAIN),
    ),
)
"""Messages in OpenAI's form, and the tools that are offered."""
