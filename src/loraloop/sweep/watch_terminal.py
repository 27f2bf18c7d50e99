"""The table of a study on a terminal, drawn anew every second, with keys."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError
from loraloop.sweep import steering, watching

if TYPE_CHECKING:
    import optuna

SECONDS = 1.0
KEYS = "q ends, s stops a trial, c tries a trial again with a change"
ASKED = {"s": "stop trial NUMBER: ", "c": "try again NUMBER [KEY=VALUE ...]: "}


def watch(study: optuna.Study) -> None:
    """Show the study until ``q`` is pressed."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    said = ""
    while True:
        with Live(auto_refresh=False, transient=True) as live, _keys() as pressed:
            key = ""
            while key not in ("q", *ASKED):
                live.update(Group(watching.draw(watching.look(study)), Text(said), Text(KEYS)), refresh=True)
                key = pressed(SECONDS)
        if key == "q":
            return
        try:
            said = answer(study, key, input(ASKED[key]))
        except EOFError:
            said = ""


def answer(study: optuna.Study, key: str, words: str) -> str:
    """What was done of what a person typed after ``s`` or ``c``, or what is wrong with it."""
    number, *changes = words.split() or [""]
    try:
        if not number.isdigit():
            raise ConfigError(f"{number or 'nothing'} is no trial's number")
        return steering.stop(study, int(number)) if key == "s" else steering.clone(study, int(number), changes)
    except ConfigError as error:
        return str(error)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key and returns it without Enter; empty if none was pressed."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return (sys.stdin.read(1) or "q") if ready else ""  # nothing more comes: nobody is there to press it

    try:
        tty.setcbreak(sys.stdin)
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
