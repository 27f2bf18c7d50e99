"""From the model that a client names to the immutable version that answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loraloop.errors import LoraloopError, UnknownVersionError
from loraloop.records import Rollout
from loraloop.serve.errors import ApiError
from loraloop.serve.names import BASE, Versions
from loraloop.serve.refreshed import Refreshed

ListRollouts = Callable[[], Sequence[Rollout]]

AGENT = "agent:"
RETRY = "recovery"
"""The role that takes over when an agent tries a task again."""
REMEMBERED = 1024
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    Attributes:
        answered: ``base`` or an immutable version.
        role: The agent role that asked.
        rollout: The rollout that chose ``answered``.
        stable: What answers where ``answered``, a rollout's new version, cannot.
    """

    asked: str
    answered: str
    role: str | None = None
    rollout: str | None = None
    stable: str | None = None

    @property
    def back(self) -> Route:
        """The way to the stable version, which is no part of the rollout."""
        return Route(self.asked, self.stable or self.answered, self.role)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a name stood for when it was looked up: a version or an error."""

    name: str | None
    error: ApiError | None
    at: float


@dataclass
class Router:
    """Resolves aliases in the registry, at most once per ``seconds`` and name, off the event loop.

    A name that was resolved before keeps its version while the registry cannot be asked or the new version is damaged:
    serving stays on what it has.

    Attributes:
        versions: Looks names up.
        roles: The name behind each agent role.
        seconds: How long an alias is believed.
        pins: Names that were given by hand to versions.
        rollouts: Returns the rollouts in progress; asked, like the registry, at most once per ``seconds``.
    """

    versions: Versions
    roles: Mapping[str, str]
    seconds: float = 1.0
    pins: dict[str, str] = field(default_factory=dict)
    rollouts: ListRollouts = tuple
    _known: OrderedDict[str, _Known] = field(default_factory=OrderedDict)
    _looking: dict[str, asyncio.Task[_Known]] = field(default_factory=dict)
    _rollouts: Refreshed[Sequence[Rollout]] = field(init=False)

    def __post_init__(self) -> None:
        self._rollouts = Refreshed(self.rollouts, (), self.seconds, "the rollouts")

    async def route(self, asked: str, retries: int = 0, conversation: str | None = None) -> Route:
        """The version that answers for ``asked``.

        Args:
            asked: ``base``, ``ocr@7``, ``ocr@champion``, ``agent:validator`` or a name that was loaded by hand.
            retries: How often the task was tried before; an agent's later tries go to the role ``recovery``.
            conversation: By which a rollout chooses between its versions; without one the stable version answers.

        Raises:
            ApiError: There is no such model, or the registry cannot be asked.
        """
        if not asked.startswith(AGENT):
            return await self._split(Route(asked, await self.version(asked)), asked, conversation)
        role = asked.removeprefix(AGENT)
        if role not in self.roles:
            roles = ", ".join(f"{AGENT}{name}" for name in self.roles) or "none"
            raise unknown(asked, f"the roles are {roles}")
        name = self.roles[RETRY if retries and RETRY in self.roles else role]
        return await self._split(Route(asked, await self.version(name), role), name, conversation)

    async def _split(self, route: Route, name: str, conversation: str | None) -> Route:
        """The route that a rollout chooses: it replaces the active version alone, for a share of the conversations."""
        model = None if name in self.pins else self.versions.active_model(name)
        if model is None or conversation is None:
            return route
        stable = int(route.answered.rpartition("@")[2])
        rollouts = await self._rollouts.get()
        rollout = next((each for each in rollouts if (each.model, each.stable) == (model, stable)), None)
        if rollout is None:
            return route
        chosen = self.versions.name(model, rollout.version(conversation))
        fallback = None if chosen == route.answered else route.answered
        return Route(route.asked, chosen, route.role, rollout.id, fallback)

    async def version(self, name: str) -> str:
        """The immutable version behind a name.

        Raises:
            ApiError: There is none, or the registry cannot be asked.
        """
        if name == BASE or name in self.pins:
            return self.pins.get(name, name)
        known = self._known.get(name)
        if known is None or not self._believed(name, known):
            looking = self._looking.get(name) or asyncio.create_task(self._look(name))
            self._looking[name] = looking
            known = await asyncio.shield(looking)
        if known.error is not None or known.name is None:
            raise known.error or unknown(name, "it is not known")
        return known.name

    def _believed(self, name: str, known: _Known) -> bool:
        return known.name == name or time.monotonic() - known.at <= self.seconds

    async def _look(self, name: str) -> _Known:
        found, fault = None, None
        try:
            found, _ = await asyncio.to_thread(self.versions.find, name)
        except UnknownVersionError as error:
            fault = unknown(name, str(error))
        except LoraloopError as error:
            before = self._known.get(name)
            found = before.name if before else None
            logger.error("%s stays on %s: %s", name, found or "nothing", error)
            fault = None if found else _away(name)
        finally:
            del self._looking[name]
        self._known[name] = _Known(found, fault, time.monotonic())
        self._known.move_to_end(name)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return self._known[name]


def unknown(asked: str, why: str) -> ApiError:
    """There is no such model."""
    message = f"the model {asked!r} does not exist: {why}; GET /v1/models lists what answers now"
    return ApiError(404, message, param="model", code="model_not_found")


def _away(name: str) -> ApiError:
    message = f"the registry cannot tell now what {name!r} is; the server's log says why. Ask again later"
    return ApiError(503, message, param="model", code="registry_unavailable", retry_after=5)
