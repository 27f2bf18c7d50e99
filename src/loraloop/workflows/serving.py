"""What the stage ``serve`` puts together."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import LoraloopError

if TYPE_CHECKING:
    from loraloop.model.causal import CausalLM
    from loraloop.serve.engine.engine import Engine
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.names import Versions
    from loraloop.serve.remote import Remote
    from loraloop.serve.server import Server
    from loraloop.serve.speech import Recogniser
    from loraloop.serve.vllm import VllmBackend

_log = logging.getLogger(__name__)


def attach(serve: LocalBackend | VllmBackend, model: CausalLM, versions: Versions) -> Engine | Remote:
    """The backend that answers; the base's weights are loaded only where it answers in this process.

    Raises:
        ModelError: The base, or its tokenizer, cannot be loaded.
    """
    from loraloop.serve.local import LocalBackend

    if isinstance(serve, LocalBackend):
        return serve.attach(model.load(), versions.version)
    return serve.attach(*model.tokenizer(), versions.version)


def tick_command(overrides: Sequence[str]) -> list[str]:
    """The command of ``stage=tick`` with the settings that the server was given, without those of the server alone."""
    own = ("stage=", "schedule.", "hydra.", "hydra/")
    groups = "hydra.searchpath="
    given = [each for each in overrides if each.startswith(groups) or not each.lstrip("+~").startswith(own)]
    return [sys.executable, "-m", "loraloop", "stage=tick", *given]


def recogniser(server: Server) -> Recogniser | None:
    """The loaded speech model, where one is set.

    Raises:
        ModelError: It cannot be loaded.
    """
    from loraloop.serve.speech import Recogniser

    if server.speech is None:
        return None
    made = Recogniser(server.speech, server.speech_revision)
    made.load()
    return made


def announce(
    server: Server,
    address: str,
    versions: Versions,
    every: str | None,
    overrides: Sequence[str] = (),
    traces: str = "",
) -> None:
    """Print where the server is, what answers and who may ask.

    Of the roles those are listed that have a version, and those that ``overrides`` name.
    """
    from loraloop.serve.keys import Keys
    from loraloop.serve.names import BASE

    keys = Keys(server.keys).all()
    names = [key.name for key in keys]
    make = "loraloop stage=keys name=NAME scopes=[infer]"
    listed = _listed(versions)
    agents = _agents(server, versions, overrides)
    shut = server.keys.exists() and not server.open
    reviewed = any(key.opens(["review"]) for key in keys) or (
        server.local and (server.open or not server.keys.exists())
    )
    nobody = f"none: {'nobody' if shut else 'this machine alone'} is answered"
    console.facts(
        "serving",
        {
            "address": f"{address}/v1",
            "pages": ", ".join(f"{address}/{page}" for page in ("docs", "metrics", *["review"] * reviewed)),
            "models": "; ".join([BASE, *(f"{name}: {version}" for name, version in listed.items())]),
            **({"agents": agents} if agents else {}),
            "keys": ", ".join(names) or f"{nobody}; to make one: {make}",
            **({"loop": f"a tick every {every}"} if every else {}),
            **({"traces": f"to {traces}"} if traces else {}),
            "try": _curl(address, next((name for name in listed if name.endswith(f"@{versions.active}")), BASE), names),
            "stop": "Ctrl+C",
        },
    )


def _listed(versions: Versions) -> dict[str, str]:
    try:
        return versions.listed()
    except LoraloopError as error:
        _log.error("the registry's aliases are not known: %s", error)
        return {}


def _curl(address: str, model: str, keys: Sequence[str]) -> str:
    """A shell command that asks ``model``; where keys are needed, one is in the variable ``KEY``."""
    key = ' -H "authorization: Bearer $KEY"' if keys else ""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
    return f"curl {address}/v1/chat/completions -H 'content-type: application/json'{key} -d '{body}'"


def _agents(server: Server, versions: Versions, overrides: Sequence[str]) -> str:
    from loraloop.serve.names import BASE

    told = []
    for role, name in server.roles.items():
        try:
            told.append(f"{role}: {BASE if name == BASE else versions.current(name)}")
        except LoraloopError:
            if any(re.match(rf"[+~]*server(\.roles(\.{re.escape(role)})?)?=", each) for each in overrides):
                told.append(f"{role}: {name}, which no version is yet (loraloop stage=promote role={role} version=N)")
    return "; ".join(told)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM: uvicorn ends on them, and raises them once more when it has ended."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
