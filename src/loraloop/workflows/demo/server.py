"""The demonstration's server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loraloop.workflows.serving import attach

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.loop.store import LoopStore
    from loraloop.model.causal import CausalLM
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.server import Server


@contextmanager
def serving(
    serve: LocalBackend, server: Server, model: CausalLM, registry: MlflowRegistry, store: Store, loop: LoopStore
) -> Iterator[str]:
    """Run the server on a thread while the context is open; yields its address."""
    from loraloop.feedback.form import router
    from loraloop.monitor.metrics import PrometheusMetrics
    from loraloop.serve import run
    from loraloop.serve.api import create_app
    from loraloop.serve.names import Versions

    versions = Versions(registry.resolve, server.names, registry.serve_alias)
    backend = attach(serve, model, versions)
    metrics = PrometheusMetrics(backend.stats, loop.stats)
    app = create_app(backend, store, versions, server, metrics, [router(store)], rollouts=loop.rollouts)
    with server.listen() as listening:
        running = run.server(app, server)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, name="server")
        thread.start()
        try:
            while not running.started and thread.is_alive():
                time.sleep(0.01)
            yield run.address(server.host, listening.getsockname()[1])
        finally:
            running.should_exit = True
            thread.join()
