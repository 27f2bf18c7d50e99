"""From the model that a client names to the immutable version that answers."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loraloop.core.suggest import nearest
from loraloop.core.workers import Workers
from loraloop.errors import BusyError, LoraloopError, UnknownVersionError
from loraloop.records import Rollout
from loraloop.serve.errors import ApiError
from loraloop.serve.names import BASE, Versions
from loraloop.serve.refreshed import Refreshed

ListRollouts = Callable[[], Sequence[Rollout]]

AGENT = "agent:"
RETRY = "recovery"
"""The role that takes over when an agent tries a task again."""
REMEMBERED = 1024
FIRST_AT_ONCE = 64
"""Names that are looked up for the first time at once; one more is told to come back."""
RETRY_SECONDS = 60.0
"""Between two tries to load the version of an alias that could not be loaded."""
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
    """What a name stood for when it was looked up: a version, or why it is none; neither before the first look."""

    name: str | None = None
    why: str | None = None


@dataclass
class Router:
    """Resolves aliases in the registry, in the background and at most once per ``seconds`` and name.

    A name that was resolved before keeps its version while the registry hangs or cannot be asked, and while its new
    version cannot be loaded: serving stays on what it has, and :attr:`behind` says so.

    Attributes:
        versions: Looks names up.
        roles: The name behind each agent role.
        seconds: How long an alias is believed.
        pins: Names that were given by hand to versions.
        rollouts: Returns the rollouts in progress; asked, like the registry, at most once per ``seconds``.
        prepare: Loads a version before an alias that was moved leads to it; raises where it cannot answer.
        on_behind: Called with an alias and whether it stays on an earlier version, when that changes.
        workers: Threads that ask the registry.
        behind: Of each alias whose version cannot be loaded, that version and when it was tried.
        registered: The registry's aliases and versions, as clients write them, and the version behind each.
    """

    versions: Versions
    roles: Mapping[str, str]
    seconds: float = 1.0
    pins: dict[str, str] = field(default_factory=dict)
    rollouts: ListRollouts = tuple
    prepare: Callable[[str], None] = lambda version: None
    on_behind: Callable[[str, bool], None] = lambda name, behind: None
    workers: Workers = field(default_factory=lambda: Workers("registry", 4))
    behind: dict[str, tuple[str, float]] = field(default_factory=dict)
    _names: OrderedDict[str, Refreshed[_Known]] = field(default_factory=OrderedDict)
    _first: set[str] = field(default_factory=set)
    _rollouts: Refreshed[Sequence[Rollout]] = field(init=False)
    registered: Refreshed[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        what = "the registry's aliases and versions"
        self.registered = Refreshed(lambda _: self.versions.registered(), {}, self.seconds, what, self.workers)
        self._rollouts = Refreshed(lambda _: self.rollouts(), (), self.seconds, "the rollouts", Workers("rollouts", 1))

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
            raise unknown(asked, f"the roles are {roles}", [f"{AGENT}{name}" for name in self.roles])
        name = self.roles[role]
        if retries and RETRY in self.roles:
            try:
                await self.version(self.roles[RETRY])
                name = self.roles[RETRY]
            except ApiError as error:
                if error.status != 404:  # without a recovery adapter the role's own tries again
                    raise
        version = await self.version(name)
        return await self._split(Route(asked, version, role), name, conversation)

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
        known = await self._known(name)
        if known.name is None:
            raise await self._unknown(name, known.why) if known.why else _away(name)
        return known.name

    async def _unknown(self, name: str, why: str) -> ApiError:
        """The error of a name that stands for nothing, with the one that was probably meant."""
        return unknown(
            name, why, [BASE, *self.pins, *(f"{AGENT}{role}" for role in self.roles), *await self.registered.get()]
        )

    async def _known(self, name: str) -> _Known:
        found = self._names.get(name)
        if found is None:
            if len(self._first) >= FIRST_AT_ONCE:  # the registry hangs, and names are guessed
                raise _away(name)
            what = f"what is known of {name}"
            found = Refreshed(lambda known: self._look(name, known), _Known(), self.seconds, what, self.workers)
            self._names[name] = found
            if len(self._names) > REMEMBERED:
                self._names.popitem(last=False)
        self._names.move_to_end(name)
        if found.known.name == name:  # a version never means another one
            return found.known
        if found.answered:
            return await found.get()
        self._first.add(name)
        try:
            return await found.get()
        finally:
            self._first.discard(name)

    def _look(self, name: str, known: _Known) -> _Known:
        """What ``name`` stands for now; blocks."""
        try:
            found = self.versions.current(name)
        except UnknownVersionError as error:
            self._catch_up(name)
            return _Known(why=str(error))
        except LoraloopError as error:
            logger.error("%s stays on %s: %s", name, known.name or "nothing", error)
            return known if known.name else _Known()
        if known.name is not None and known.name != found and not self._prepared(name, known.name, found):
            return known
        self._catch_up(name)
        return _Known(found)

    def _prepared(self, name: str, before: str, found: str) -> bool:
        """Whether the new version of an alias can answer; one that cannot is tried again each minute."""
        tried, at = self.behind.get(name, ("", 0.0))
        if tried == found and time.monotonic() - at < RETRY_SECONDS:
            return False
        try:
            self.prepare(found)
        except Exception as error:
            unexpected = not isinstance(error, LoraloopError)
            logger.error(
                "%s stays on %s, because %s cannot be loaded: %s", name, before, found, error, exc_info=unexpected
            )
            tried_at = -RETRY_SECONDS if isinstance(error, BusyError) else time.monotonic()
            self.behind[name] = (found, tried_at)
            self.on_behind(name, True)
            return False
        return True

    def _catch_up(self, name: str) -> None:
        if self.behind.pop(name, None) is not None:
            self.on_behind(name, False)


def unknown(asked: str, why: str, names: Iterable[str] = ()) -> ApiError:
    """There is no such model; one of ``names`` was probably meant."""
    message = f"the model {asked!r} does not exist{nearest(asked, names)}: {why}; GET /v1/models lists what answers now"
    return ApiError(404, message, param="model", code="model_not_found")


def _away(name: str) -> ApiError:
    message = f"the registry cannot tell now what {name!r} is; the server's log says why. Ask again later"
    return ApiError(503, message, param="model", code="registry_unavailable", retry_after=5)
