"""Stages ``serve`` and ``keys``: the OpenAI-compatible server, and who may use it."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError, LoraloopError

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.names import Versions
    from loraloop.serve.schedule import Schedule
    from loraloop.serve.server import Server
    from loraloop.serve.speech import Recogniser
    from loraloop.serve.vllm import VllmBackend

logger = logging.getLogger(__name__)


def serve(
    job: Job,
    serve: LocalBackend | VllmBackend,
    server: Server,
    model: CausalLM,
    ocr: Ocr,
    registry: MlflowRegistry,
    feedback: Feedback,
    schedule: Schedule,
) -> None:
    """Serve base and adapters until SIGTERM or Ctrl+C; answers that have begun get ``server.drain_seconds`` to end.

    With ``serve=vllm`` the base is that server's, and ``model`` is not loaded here. With ``schedule.every`` the loop
    goes a step further (``stage=tick``) every so often, in a process of its own.

    Raises:
        ModelError: The base or the speech model cannot be loaded.
    """
    from loraloop.dataset.template import format_renderer
    from loraloop.feedback.form import router
    from loraloop.loop.store import LoopStore
    from loraloop.monitor.metrics import PrometheusMetrics
    from loraloop.serve import run
    from loraloop.serve.api import create_app
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.names import Versions

    versions = Versions(registry.resolve, server.names, registry.serve_alias)
    loaded = model.load() if isinstance(serve, LocalBackend) else None
    backend = serve.attach(loaded, format_renderer, versions.version)  # type: ignore[arg-type]
    backend.check()
    versions.aliases = partial(registry.aliases, backend.base)
    metrics = PrometheusMetrics(backend.stats, lambda: loop.stats())
    sessions = feedback.open(metrics.rated)
    loop = LoopStore(sessions.database)
    heard, rating = _recogniser(server), router(sessions)
    app = create_app(backend, sessions, versions, server, metrics, [rating], ocr, heard, loop.rollouts)
    with closing(sessions), server.listen() as listening, _ended_by_signals():
        _announce(server, run.address(server.host, listening.getsockname()[1]), versions, schedule.every)
        with schedule.running(_tick(job.overrides)):
            run.server(app, server).run(sockets=[listening])
    print("stopped")


def keys(job: Job, name: str | None, scopes: str | Sequence[str], revoke: str | None, file: str) -> None:
    """Make a key, shown once; take one back; or, without a name, list them."""
    from loraloop.serve.keys import SCOPES, Keys

    kept = Keys(Path(file))
    if revoke is not None:
        kept.revoke(str(revoke))
        print(f"the key {revoke} opens nothing any more")
        return
    if name is None:
        rows = [[key.name, ", ".join(key.scopes), key.created] for key in kept.all()]
        console.table(f"keys in {file}", ["name", "scopes", "made"], rows, numbers=False)
        return
    wanted = [scopes] if isinstance(scopes, str) else list(scopes)
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise ConfigError(f"scopes={wanted}: take some of {', '.join(SCOPES)}, such as scopes=[infer,feedback]")
    secret = kept.add(str(name), wanted)
    console.facts(f"key {name} (it is not shown again)", {"key": secret, "scopes": ", ".join(wanted)})


def _tick(overrides: Sequence[str]) -> list[str]:
    """The command that takes the loop a step further, with the settings that the server was given."""
    own = ("stage=", "schedule.", "hydra.", "hydra/")
    groups = "hydra.searchpath="
    given = [each for each in overrides if each.startswith(groups) or not each.lstrip("+~").startswith(own)]
    return [sys.executable, "-m", "loraloop", "stage=tick", *given]


def _recogniser(server: Server) -> Recogniser | None:
    from loraloop.serve.speech import Recogniser

    if server.speech is None:
        return None
    made = Recogniser(server.speech, server.speech_revision)
    made.load()
    return made


def _announce(server: Server, address: str, versions: Versions, every: str | None) -> None:
    from loraloop.serve.keys import Keys
    from loraloop.serve.names import BASE

    names = [key.name for key in Keys(server.keys).all()]
    make = "loraloop stage=keys name=NAME scopes=[infer]"
    listed = _listed(versions)
    console.facts(
        "serving",
        {
            "address": f"{address}/v1",
            "pages": f"{address}/docs, {address}/metrics",
            "models": "; ".join([BASE, *(f"{name}: {version}" for name, version in listed.items())]),
            "agents": "; ".join(f"{role}: {_target(name, versions)}" for role, name in server.roles.items()) or "none",
            "keys": ", ".join(names) or f"none: this machine alone is answered; to make one: {make}",
            **({"loop": f"a tick every {every}"} if every else {}),
            "try": _curl(address, next((name for name in listed if name.endswith(f"@{versions.active}")), BASE), names),
            "stop": "Ctrl+C",
        },
    )


def _listed(versions: Versions) -> dict[str, str]:
    try:
        return versions.listed()
    except LoraloopError as error:
        logger.error("the registry's aliases are not known: %s", error)
        return {}


def _curl(address: str, model: str, keys: Sequence[str]) -> str:
    """A shell command that asks ``model``; where keys are needed, one is in the variable ``KEY``."""
    key = ' -H "authorization: Bearer $KEY"' if keys else ""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
    return f"curl {address}/v1/chat/completions -H 'content-type: application/json'{key} -d '{body}'"


def _target(name: str, versions: Versions) -> str:
    from loraloop.serve.names import BASE

    try:
        return BASE if name == BASE else versions.find(name)[0]
    except LoraloopError:
        return f"{name}, which has no version yet"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """The server itself ends on signals, and raises them again when it has; then they have done their work."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
