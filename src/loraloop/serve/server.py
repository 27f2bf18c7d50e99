"""Settings of the server: address, keys, roles and limits."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from loraloop.core.part import part
from loraloop.errors import ConfigError
from loraloop.serve.keys import Keys
from loraloop.serve.names import BASE, NAME

MIB = 2**20
BACKLOG = 1024
"""Connections that wait to be accepted."""


@part
class Server:
    """Settings of the HTTP server.

    Attributes:
        host: Address to listen on; any but loopback demands keys.
        port: TCP port; 0 takes a free one.
        keys: File of hashed keys; where there is one, every client needs a key, also when the last was revoked.
        open: Ask for no key, although that file is there; on loopback alone.
        names: Short names of registered models.
        roles: What answers for each agent role; ``recovery`` also takes an agent's retries.
        alias_seconds: How long an alias is believed before the registry is asked again.
        max_tokens: Longest answer.
        deadline_seconds: An answer ends as it is after this time.
        max_body_bytes: Largest body of a request.
        max_files: Images and recordings in one request.
        max_file_bytes: Largest image or recording, decoded.
        max_in_flight: Requests at once, of all clients; more are refused with 429.
        rate: Requests of one key, or of one address where keys are not asked for, as ``limits`` writes it.
        forwarded_allow_ips: Addresses and networks of proxies whose ``X-Forwarded-For`` and ``-Proto`` are believed, as
            uvicorn's setting of that name: a client's address is then its own, and a cookie of https is secure.
        drain_seconds: Time for answers to end when the server stops.
        speech: Speech-recognition model, from the hub or a folder, for ``input_audio``; ``null`` refuses it.
        speech_revision: Its commit; pin it for models from the hub.
    """

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    keys: Path = Path("mlruns/keys.json")
    open: bool = False
    names: dict[str, str] = Field(default_factory=dict)
    roles: dict[str, str] = Field(default_factory=dict)
    alias_seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] = 512
    deadline_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    max_body_bytes: Annotated[int, Field(ge=1024)] = 16 * MIB
    max_files: Annotated[int, Field(ge=0)] = 8
    max_file_bytes: Annotated[int, Field(ge=1)] = 10 * MIB
    max_in_flight: Annotated[int, Field(ge=1)] = 64
    rate: str | None = "6000/minute"
    forwarded_allow_ips: tuple[str, ...] = ()
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 10.0
    speech: str | None = None
    speech_revision: str | None = None

    @field_validator("roles")
    @classmethod
    def _named(cls, roles: dict[str, str]) -> dict[str, str]:
        for role, name in roles.items():
            if name != BASE and not NAME.fullmatch(name):
                raise ValueError(f"{role}: {name!r} must be {BASE}, NAME@ALIAS or NAME@VERSION, such as ocr@champion")
        return roles

    @field_validator("rate")
    @classmethod
    def _readable(cls, rate: str | None) -> str | None:
        if rate is not None:
            from limits import parse_many

            try:
                parse_many(rate)
            except ValueError:
                raise ValueError("write a number per second, minute, hour or day, such as 600/minute") from None
        return rate

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            try:
                ipaddress.ip_network(each)
            except ValueError:
                raise ValueError(
                    f"{each!r} is no address or network of a proxy: write it as 127.0.0.1 or 172.18.0.0/16 (whoever is "
                    "believed can claim to be any client)"
                ) from None
        return given

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Check keys and port before anything is loaded.

        Raises:
            ConfigError: An address that others reach without a key, or a port that is taken.
        """
        if self.open and not self.local:
            raise ConfigError(
                f"server.open=true answers without a key, and server.host={self.host} is reached from other machines: "
                "server.open=false, or server.host=127.0.0.1"
            )
        if not self.local and not Keys(self.keys).all():
            raise ConfigError(
                f"server.host={self.host} is reached from other machines, which needs a key: "
                "loraloop stage=keys name=NAME scopes=[infer], or server.host=127.0.0.1"
            )
        try:
            self.listen().close()
        except OSError as error:
            raise ConfigError(
                f"server.port={self.port} on server.host={self.host} cannot be used ({error.strerror or error}); "
                "server.port=0 takes a free one"
            ) from error

    def listen(self) -> socket.socket:
        """A socket that listens at the address."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only where a socket names its protocol: 40 ms a request otherwise.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening
