"""The routes' view of adapters: what answers now, and loading and unloading by hand, in vLLM's form."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loraloop.core.workers import Workers
from loraloop.errors import ModelError, RegistryError
from loraloop.serve.errors import ApiError
from loraloop.serve.names import BASE
from loraloop.serve.routing import AGENT, Router, unknown
from loraloop.serve.schema import LoadRequest, UnloadRequest

if TYPE_CHECKING:
    from loraloop.protocols import Backend


@dataclass
class Adapters:
    """Lists, loads and unloads adapters."""

    backend: Backend
    router: Router
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _workers: Workers = field(default_factory=lambda: Workers("adapters", 2))
    _since: int = field(default_factory=lambda: int(time.time()))

    async def all(self) -> dict[str, Any]:
        """``/v1/models``: base, versions in memory, names given by hand, roles with a version, registered names.

        The adapter behind a registered name is verified by the first request for it, not here.
        """
        loaded = await self._workers.run(self.backend.loaded)
        names = [*loaded, *self.router.pins, *(f"{AGENT}{role}" for role in self.router.roles)]
        found = await asyncio.gather(*map(self._if_known, names))
        roots = {name: root for name, root in found if root is not None}
        roots = await self.router.registered.get() | roots
        order = sorted(roots, key=lambda name: name not in loaded)
        return {"object": "list", "data": [self._card(name, roots[name]) for name in order]}

    async def one(self, name: str) -> dict[str, Any]:
        """``/v1/models/NAME``; ``root`` is what answers for it now.

        Raises:
            ApiError: There is no such model.
        """
        if not name:  # as OpenAI's API does
            message = "Invalid URL (GET /v1/models/): without the slash at its end it lists the models"
            raise ApiError(404, message, code="unknown_url")
        return self._card(name, (await self.router.route(name)).answered)

    async def load(self, body: LoadRequest) -> str:
        """Make an adapter answer under a name, which then means that one version until it is unloaded.

        Raises:
            ApiError: The name is taken or wrong, or the adapter is damaged or does not fit the base.
        """
        name, versions = body.lora_name, self.router.versions
        async with self._lock:
            if name == BASE or name in self.router.pins:
                raise _invalid("lora_name", f"{name!r} is loaded already: unload it, or choose another name")
            try:
                kept, version = await self._workers.run(versions.open, name, body.lora_path)
                if "@" in name and name != kept:
                    raise _invalid("lora_name", f"NAME@VERSION says what an adapter is, and this one is {kept}")
                if kept not in await self._workers.run(self.backend.loaded):
                    await self._workers.run(self.backend.load, kept, version)
            except (RegistryError, ModelError) as error:
                raise _invalid("lora_path", str(error)) from error
            self.router.pins[name] = kept
        return f"Success: LoRA adapter '{name}' added successfully."

    async def unload(self, body: UnloadRequest) -> str:
        """Unload an adapter after the answers that it has begun; a registered one is loaded again by the next request.

        Raises:
            ApiError: It is not loaded.
        """
        name = body.lora_name
        async with self._lock:
            kept = self.router.pins.pop(name, name)
            loaded = set(await self._workers.run(self.backend.loaded)) - {BASE}
            if kept not in loaded and kept == name:
                raise unknown(name, "it is not loaded")
            if kept in loaded and kept not in self.router.pins.values():
                await self._workers.run(self.backend.unload, kept)
                self.router.versions.forget(kept)
        return f"Success: LoRA adapter '{name}' removed successfully."

    async def _if_known(self, name: str) -> tuple[str, str | None]:
        try:
            return name, (await self.router.route(name)).answered
        except ApiError:
            return name, None

    def _card(self, name: str, root: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._since,
            "owned_by": "loraloop",
            "root": root,
            "parent": None if root == BASE else BASE,
            "max_model_len": self.backend.limit(),
        }


def _invalid(param: str, message: str) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_adapter")
