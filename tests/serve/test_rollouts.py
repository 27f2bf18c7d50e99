"""A new version on a share of conversations: who gets it, and for how long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from loraloop.errors import StoreError
from loraloop.records import Base, Manifest, Rollout, Version
from loraloop.serve.names import Versions
from loraloop.serve.routing import Route, Router
from waiting import PATIENCE

NAMES = {"ocr": "loraloop-ocr", "fix": "loraloop-recovery"}
ROLES = {"validator": "ocr@champion", "pinned": "ocr@7", "recovery": "fix@champion"}
BASE = Base(
    name="b", revision=None, sha256="1", tokenizer_sha256="2", chat_template_sha256=None, quantization="none",
    dtype="f",
)  # fmt: skip
MANIFEST = Manifest(
    base=BASE, rank=8, alpha=16.0, targets=(), dataset_fingerprint="", template="chat", run_id=None,
    parent_run_id=None, weights_sha256="abcdef012345" * 5, loraloop_version="",
)  # fmt: skip


def rollout(model: str = "loraloop-ocr", stable: int = 7, canary: int = 8, share: float = 0.15) -> Rollout:
    """One in progress."""
    return Rollout(
        id=f"r-{model}", role="validator", model=model, stable=stable, canary=canary, share=share,
        began="2026-11-20T10:00:00.000+00:00",
    )  # fmt: skip


@dataclass
class World:
    """A registry and a table of rollouts that many servers look at."""

    rollouts: list[Rollout] = field(default_factory=lambda: [rollout()])
    champion: int = 7
    asked: int = 0
    threads: set[threading.Thread] = field(default_factory=set)
    fault: Exception | None = None

    def running(self) -> Sequence[Rollout]:
        """Those in progress."""
        self.asked += 1
        self.threads.add(threading.current_thread())
        if self.fault:
            raise self.fault
        return list(self.rollouts)

    def resolve(self, reference: str) -> Version:
        """Any version; the alias is where the champion is."""
        name, _, at = reference.removeprefix("models:/").replace("/", "@").partition("@")
        number = int(at) if at.isdecimal() else self.champion
        return Version(name=name, number=number, aliases=(), path=Path("a"), manifest=MANIFEST)

    def server(self, seconds: float = 0.0) -> Router:
        """A server that has just started."""
        return Router(Versions(self.resolve, NAMES), ROLES, seconds, rollouts=self.running)


def routes(router: Router, conversations: Sequence[str | None], asked: str = "agent:validator", retries: int = 0):
    """Where each conversation goes."""

    async def all_of_them() -> list[Route]:
        return [await router.route(asked, retries, each) for each in conversations]

    return asyncio.run(all_of_them())


TALKS = [f"talk-{number}" for number in range(4000)]


def test_a_share_of_conversations_gets_the_new_version():
    """Of 4,000 conversations the share lies within the binomial's 99.9% bounds, each under the rollout's id."""
    found = routes(World().server(60), TALKS)
    low, high = binom.interval(0.999, len(TALKS), 0.15)
    new = [each for each in found if each.answered == "ocr@8"]
    assert low <= len(new) <= high
    assert {each.answered for each in found} == {"ocr@7", "ocr@8"}
    assert {each.rollout for each in found} == {"r-loraloop-ocr"}
    assert {each.stable for each in new} == {"ocr@7"}
    assert all(each.stable is None for each in found if each.answered == "ocr@7")
    assert new[0].back == Route("agent:validator", "ocr@7", "validator")


def test_a_conversation_keeps_its_version():
    """Whichever server answers, by role or by alias, also after a restart: a conversation stays where it was."""
    world = World(rollouts=[rollout(share=0.5)])
    first = [each.answered for each in routes(world.server(60), TALKS[:200])]
    for asked in ("agent:validator", "ocr@champion", "loraloop-ocr@champion"):
        again = routes(world.server(60), TALKS[:200], asked)
        assert [each.answered for each in again] == first


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_takes_nobody_back(conversation, one, other):
    """A conversation that a rollout gives to the new version stays there when its share grows; 0 and 1 are exact."""
    smaller, larger = sorted((one, other))
    chosen = [rollout(share=share).version(conversation) for share in (0.0, smaller, larger, 1.0)]
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (7, 8)


@pytest.mark.parametrize("asked", ["ocr@7", "ocr@007", "loraloop-ocr@7", "agent:pinned", "mine", "base"])
def test_what_is_pinned_is_never_rerouted(asked):
    """A version by its number, a role set to one, a name that was loaded by hand, and the base stay what they are."""
    router = World(rollouts=[rollout(share=1.0)]).server()
    router.pins["mine"] = "ocr@7"
    (found,) = routes(router, ["talk"], asked)
    assert (found.answered, found.rollout) == ("base" if asked == "base" else "ocr@7", None)


def test_other_aliases_of_the_stable_version_keep_it():
    """Whoever asks for ``ocr@frozen`` gets that version, also where it is the one that reigns and a rollout runs."""
    world = World([rollout(share=1)])
    assert {each.answered for each in routes(world.server(), ["a", "b"], "ocr@frozen")} == {"ocr@7"}
    assert {each.answered for each in routes(world.server(), ["a", "b"], "ocr@champion")} == {"ocr@8"}


def test_a_name_loaded_by_hand_may_look_like_an_alias():
    """A folder's adapter that was loaded as ``ocr@champion`` is pinned too."""
    router = World(rollouts=[rollout(share=1.0)]).server()
    router.pins["ocr@champion"] = "ocr@7"
    assert routes(router, ["talk"], "ocr@champion")[0].answered == "ocr@7"


def test_a_retry_goes_by_its_own_route():
    """An agent's retry goes to the recovery role, and to that role's rollout if it has one, not to the agent's."""
    world = World(rollouts=[rollout(share=1.0)])
    first, again = routes(world.server(), ["talk"])[0], routes(world.server(), ["talk"], retries=1)[0]
    assert (first.answered, again.answered, again.rollout) == ("ocr@8", "fix@7", None)
    world.rollouts.append(rollout("loraloop-recovery", canary=9, share=1.0))
    (again,) = routes(world.server(), ["talk"], retries=1)
    assert (again.answered, again.rollout, again.stable) == ("fix@9", "r-loraloop-recovery", "fix@7")


def test_without_a_conversation_the_stable_version_is_named():
    """Who asks what a name means, as the list of models does, is told the stable version."""
    assert routes(World(rollouts=[rollout(share=1.0)]).server(), [None])[0].answered == "ocr@7"


def test_an_ended_rollout_has_no_traffic():
    """Once what was known has its age, the next request of every conversation gets the stable version."""
    world = World(rollouts=[rollout(share=1.0)])
    router = world.server()
    assert {each.answered for each in routes(router, TALKS[:20])} == {"ocr@8"}
    world.rollouts.clear()
    assert {(each.answered, each.rollout) for each in routes(router, TALKS[:20])} == {("ocr@7", None)}


def test_a_champion_moved_by_hand_ends_the_traffic():
    """A rollout compares with one stable version: where the alias leads to another, everybody gets that one."""
    world = World(rollouts=[rollout(share=1.0)])
    router = world.server()
    assert routes(router, ["talk"])[0].answered == "ocr@8"
    world.champion = 5
    assert (routes(router, ["talk"])[0].answered, routes(router, ["talk"])[0].rollout) == ("ocr@5", None)


@pytest.mark.parametrize("fault", [StoreError("the database is locked"), KeyError("a surprise")])
def test_what_is_known_stays_while_nobody_can_be_asked(caplog, fault):
    """Rollouts that cannot be asked for go on as they were, the log says so, and a server that knows none has none."""
    world = World(rollouts=[rollout(share=1.0)])
    router, fresh = world.server(), world.server()
    routes(router, ["talk"])
    world.fault = fault
    assert routes(router, ["talk"])[0].answered == "ocr@8"
    assert "the rollouts stay as they were known" in caplog.text
    assert routes(fresh, ["talk"])[0].answered == "ocr@7"
    world.fault = None
    world.rollouts.clear()
    assert routes(router, ["talk"])[0].answered == "ocr@7"


def test_they_are_asked_for_once_while_they_are_believed():
    """Many requests at once and after each other cost one look, which is taken in another thread."""
    world = World()
    router = world.server(60)

    async def many() -> None:
        for _ in range(2):
            await asyncio.gather(*(router.route("ocr@champion", 0, each) for each in TALKS[:50]))

    asyncio.run(many())
    assert world.asked == 1
    assert threading.main_thread() not in world.threads


def test_a_client_that_leaves_takes_no_look_with_it():
    """A look that several requests wait for goes on when the first of them is cancelled."""
    world, gate = World(rollouts=[rollout(share=1.0)]), threading.Event()
    router = world.server(60)
    router._rollouts.ask = lambda: gate.wait(PATIENCE) and world.running()

    async def first_leaves() -> str:
        await router.version("ocr@champion")
        first, second = (asyncio.create_task(router.route("ocr@champion", 0, "talk")) for _ in range(2))
        for _ in range(3):
            await asyncio.sleep(0)
        first.cancel()
        gate.set()
        return (await second).answered

    assert asyncio.run(first_leaves()) == "ocr@8"
