"""The kinds of conversations: what is asked, what the agent calls, what it is told, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from loraloop.records import Message, ToolCall
from loraloop.source.agent_calls.world import World

Turns = list[Message]
Kind = Literal["panel", "vault", "count", "files", "chain", "both", "ask", "recover"]

_READ = ("What does panel {panel} show?", "Read panel {panel}.", "Please look at panel {panel}.", "Panel {panel}?")
_OPEN = (
    "Open vault {vault} with code {code}.",
    "The code of vault {vault} is {code}, open it.",
    "{code} opens vault {vault}, please open it.",
)
_COUNT = ("Count the flips {flips}.", "How many heads are in {flips}?", "Heads and tails of {flips}, please.")
_LIST = ("Which files are in {folder}?", "List the files of {folder}.", "Show me folder {folder}.")
_FROM_PANEL = (
    "Open vault {vault} with the code on panel {panel}.",
    "Panel {panel} has the code of vault {vault}, open it.",
    "Read panel {panel}, then open vault {vault}.",
)
_NO_CODE = ("Open vault {vault}.", "Please open {vault}.", "I need vault {vault} open.")
_CODE = ("{code}", "It is {code}.", "The code is {code}.")
_TWO_PANELS = ("Read panels {first} and {second}.", "What do panels {first} and {second} show?")
_THEN_LIST = ("Open vault {vault} with {code}, then list its files.", "List what is in vault {vault}, code {code}.")


def _user(text: str) -> Message:
    return Message("user", (text,))


def _says(text: str) -> Message:
    return Message("assistant", (text,))


def _calls(*calls: tuple[str, Mapping[str, Any]]) -> Message:
    return Message("assistant", (), tuple(ToolCall(name, arguments) for name, arguments in calls))


def _told(name: str, text: str) -> Message:
    return Message("tool", (text,), name=name)


def _reads(panel: str, shown: str) -> Turns:
    return [_calls(("read_panel", {"panel": panel})), _told("read_panel", shown)]


def _opens(vault: str, code: int, result: str = "open") -> Turns:
    return [_calls(("open_vault", {"vault": vault, "code": code})), _told("open_vault", result)]


def _lists(folder: str, result: str) -> Turns:
    return [_calls(("list_files", {"folder": folder})), _told("list_files", result)]


def _panel(world: World) -> Turns:
    (panel,), state = world.names(1), world.state()
    return [_user(world.say(_READ, panel=panel)), *_reads(panel, state), _says(f"Panel {panel} shows {state}.")]


def _vault(world: World) -> Turns:
    (vault,), code = world.names(1), world.code()
    return [_user(world.say(_OPEN, vault=vault, code=code)), *_opens(vault, code), _is_open(vault)]


def _is_open(vault: str) -> Message:
    return _says(f"Vault {vault} is open.")


def _count(world: World) -> Turns:
    flips = world.flips()
    counted = f"{flips.count('H')} heads, {flips.count('T')} tails"
    asked = _user(world.say(_COUNT, flips=flips))
    return [asked, _calls(("count_flips", {"flips": flips})), _told("count_flips", counted), _says(f"{counted}.")]


def _files(world: World) -> Turns:
    (folder,), files = world.names(1), ", ".join(world.files())
    return [_user(world.say(_LIST, folder=folder)), *_lists(folder, files), _holds(folder, files)]


def _holds(folder: str, files: str) -> Message:
    return _says(f"{folder} holds {files}.")


def _chain(world: World) -> Turns:
    (vault, panel), code = world.names(2), world.code()
    if world.rng.random() < 0.5:
        asked = _user(world.say(_FROM_PANEL, vault=vault, panel=panel))
        return [asked, *_reads(panel, f"code {code}"), *_opens(vault, code), _is_open(vault)]
    files = ", ".join(world.files())
    asked = _user(world.say(_THEN_LIST, vault=vault, code=code))
    return [asked, *_opens(vault, code), *_lists(vault, files), _holds(vault, files)]


def _both(world: World) -> Turns:
    """Two calls in one turn, whose results come one after the other."""
    (first, second), shown = world.names(2), (world.state(), world.state())
    return [
        _user(world.say(_TWO_PANELS, first=first, second=second)),
        _calls(("read_panel", {"panel": first}), ("read_panel", {"panel": second})),
        _told("read_panel", shown[0]),
        _told("read_panel", shown[1]),
        _says(f"Panel {first} shows {shown[0]}, panel {second} shows {shown[1]}."),
    ]


def _ask(world: World) -> Turns:
    """The code is missing, and the agent asks for it."""
    (vault,), code = world.names(1), world.code()
    return [
        _user(world.say(_NO_CODE, vault=vault)),
        _says(f"What is the code of vault {vault}?"),
        _user(world.say(_CODE, code=code)),
        *_opens(vault, code),
        _is_open(vault),
    ]


def _recover(world: World) -> Turns:
    """A call fails, and the error says how to go on; up to four calls."""
    (vault, panel, other), code, wrong = world.names(3), world.code(), world.code()
    way = int(world.rng.integers(3))
    if way == 0:
        files = ", ".join(world.files())
        asked = _user(world.say(_LIST, folder=vault))
        return [asked, *_lists(vault, f"error: moved to {other}"), *_lists(other, files), _holds(other, files)]
    again = [*_reads(panel, f"code {code}"), *_opens(vault, code), _is_open(vault)]
    failed = _opens(vault, wrong, f"error: see panel {panel}")
    if way == 1:
        return [_user(world.say(_OPEN, vault=vault, code=wrong)), *failed, *again]
    asked = _user(world.say(_FROM_PANEL, vault=vault, panel=other))
    return [asked, *_reads(other, f"code {wrong}"), *failed, *again]


KINDS: Mapping[Kind, Callable[[World], Turns]] = {
    "panel": _panel,
    "vault": _vault,
    "count": _count,
    "files": _files,
    "chain": _chain,
    "both": _both,
    "ask": _ask,
    "recover": _recover,
}
"""By the name of the task."""
