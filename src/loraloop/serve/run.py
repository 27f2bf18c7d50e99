"""The application on a socket, until a signal ends it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import uvicorn

from loraloop.serve.connection import Connection

if TYPE_CHECKING:
    from fastapi import FastAPI

    from loraloop.serve.server import Server

HEAD_BYTES = 32 * 1024
"""Largest head of a request."""


def server(app: FastAPI, settings: Server) -> uvicorn.Server:
    """What serves ``app``; ``run(sockets=[settings.listen()])`` blocks until SIGTERM or Ctrl+C.

    Then it takes no new connection, gives answers ``drain_seconds`` to end, ends the others, and closes the backend.
    """
    # The guard writes a line per request; uvicorn's holds the whole address, and a rating link's is its proof.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            http=Connection,
            ws="none",
            server_header=False,
            # Without a proxy that is named, an address is what the socket says, not what a header claims.
            proxy_headers=bool(settings.forwarded_allow_ips),
            forwarded_allow_ips=list(settings.forwarded_allow_ips),
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        )
    )


def address(host: str, port: int) -> str:
    """The URL of a host and port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
