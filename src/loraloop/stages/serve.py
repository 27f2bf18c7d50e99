"""Stage ``serve``: the OpenAI-compatible server."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from loraloop.workflows import erasure, proposals, serving

if TYPE_CHECKING:
    from loraloop.feedback.review_queue import Queue
    from loraloop.feedback.settings import Feedback
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.schedule import Schedule
    from loraloop.serve.server import Server
    from loraloop.serve.vllm import VllmBackend
    from loraloop.tracing.settings import Tracing


def serve(
    job: Job,
    serve: LocalBackend | VllmBackend,
    server: Server,
    model: CausalLM,
    ocr: Ocr,
    registry: MlflowRegistry,
    feedback: Feedback,
    schedule: Schedule,
    tracing: Tracing,
    review: Queue,
) -> None:
    """Serve base and adapters until SIGTERM or Ctrl+C; answers that have begun get ``server.drain_seconds`` to end.

    With ``serve=vllm`` that server has the base, of which ``model`` loads the tokenizer alone here. With
    ``schedule.every`` a process of its own takes a step of the loop (``stage=tick``) at that interval. A thread exports
    answers as traces where ``tracing`` says.

    Raises:
        ModelError: The base or the speech model cannot be loaded.
    """
    from loraloop.feedback import form, review_page
    from loraloop.feedback.erasure import known_count
    from loraloop.loop.store import LoopStore
    from loraloop.monitor.metrics import PrometheusMetrics
    from loraloop.serve import run
    from loraloop.serve.api import create_app
    from loraloop.serve.forgetting import forgetting
    from loraloop.serve.keys import Keys
    from loraloop.serve.names import Versions
    from loraloop.tracing.exporter import exporting
    from loraloop.tracing.queue import put

    versions = Versions(registry.resolve, server.names, registry.serve_alias, number=registry.number)
    backend = serving.attach(serve, model, versions)
    backend.check()
    versions.aliases = partial(registry.aliases, backend.base)
    versions.numbers = partial(registry.versions, backend.base)
    metrics = PrometheusMetrics(backend.stats, lambda: loop.stats())
    sessions = feedback.open(metrics.rated, put(tracing.names) if tracing.names else None)
    erasure.expire(feedback, sessions, ocr)
    loop = LoopStore(sessions.database)
    waiting = partial(proposals.waiting, sessions, review)
    pages = [form.router(sessions), review_page.router(sessions, waiting, Keys(server.keys))]
    heard = serving.recogniser(server)
    app = create_app(backend, sessions, versions, server, metrics, pages, ocr, heard, loop.rollouts)
    with closing(sessions), ocr.warm(), server.listen() as listening, serving.ended_by_signals():
        address = run.address(server.host, listening.getsockname()[1])
        serving.announce(server, address, versions, schedule.every, job.overrides, tracing.told)
        with (
            schedule.running(serving.tick_command(job.overrides)),
            exporting(tracing, sessions.database),
            forgetting(partial(known_count, sessions), backend.forget),
        ):
            run.server(app, server).run(sockets=[listening])
    print("stopped")
