"""Where the server listens, and what its settings may be."""

from __future__ import annotations

import asyncio
import socket

import pytest
from pydantic import ValidationError

from loraloop.serve.run import address
from loraloop.serve.server import Server


def test_small_answers_are_not_held_back(tmp_path):
    """A connection sends at once what it is given: Nagle's algorithm is off."""
    found = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            found.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def connect() -> None:
        listening = Server(port=0, keys=tmp_path / "none").listen()
        server = await asyncio.get_running_loop().create_server(Protocol, sock=listening)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        await reader.read()
        writer.close()
        server.close()

    asyncio.run(connect())
    assert found == [1]


@pytest.mark.parametrize(
    "values", [{"rate": "often"}, {"roles": {"actor": "ocr"}}, {"port": 70000}, {"max_tokens": 0}, {"hosts": "x"}]
)
def test_settings_are_checked(values):
    """A value outside its rule, and a key that does not exist, are errors on construction."""
    with pytest.raises(ValidationError):
        Server(**values)


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("127.0.0.9", True), ("::1", True), ("10.0.0.1", False)]
)
def test_which_addresses_are_this_machine(host, local):
    """The whole of 127.0.0.0/8 and ::1 are this machine; nothing else is."""
    assert Server(host=host).local is local


def test_addresses_are_urls():
    """An IPv6 address stands in brackets."""
    assert address("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert address("::1", 80) == "http://[::1]:80"
