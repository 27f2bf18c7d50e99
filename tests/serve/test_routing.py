"""From a model's name to the version that answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from loraloop.errors import RegistryError, UnknownVersionError
from loraloop.records import Base, Manifest, Version
from loraloop.serve.errors import ApiError
from loraloop.serve.names import Versions
from loraloop.serve.routing import Router
from waiting import PATIENCE

NAMES = {"ocr": "loraloop-ocr"}
ROLES = {"validator": "ocr@champion", "actor": "base", "recovery": "fix@1"}


class Registry:
    """Aliases that can be moved, and a switch."""

    def __init__(self) -> None:
        self.champion, self.down, self.asked = 7, False, []

    def resolve(self, reference: str) -> Version:
        """What the registry says."""
        self.asked.append(reference)
        if self.down:
            raise RegistryError("the database is locked")
        if reference.endswith("@nobody"):
            raise UnknownVersionError("no such alias")
        name, _, at = reference.removeprefix("models:/").replace("/", "@").partition("@")
        return version(name, int(at) if at.isdecimal() else self.champion)


def version(name: str, number: int) -> Version:
    base = Base(
        name="b",
        revision=None,
        sha256="1",
        tokenizer_sha256="2",
        chat_template_sha256=None,
        quantization="none",
        dtype="f",
    )
    manifest = Manifest(
        base=base, rank=8, alpha=16.0, targets=(), dataset_fingerprint="", template="chat", run_id=None,
        parent_run_id=None, weights_sha256="abcdef012345" * 5, loraloop_version="",
    )  # fmt: skip
    return Version(name=name, number=number, aliases=(), path=Path("a"), manifest=manifest)


def made(seconds: float = 60.0) -> tuple[Router, Registry]:
    registry = Registry()
    return Router(Versions(registry.resolve, NAMES), ROLES, seconds), registry


@pytest.mark.parametrize(
    ("asked", "retries", "answered", "role"),
    [
        ("base", 0, "base", None),
        ("ocr@7", 0, "ocr@7", None),
        ("ocr@007", 0, "ocr@7", None),
        ("loraloop-ocr@7", 0, "ocr@7", None),
        ("ocr@champion", 0, "ocr@7", None),
        ("other@3", 0, "other@3", None),
        ("agent:validator", 0, "ocr@7", "validator"),
        ("agent:actor", 0, "base", "actor"),
        ("agent:validator", 1, "fix@1", "validator"),
        ("agent:recovery", 0, "fix@1", "recovery"),
        ("ocr@champion", 3, "ocr@7", None),
    ],
)
def test_a_name_leads_to_an_immutable_version(asked, retries, answered, role):
    """Versions, aliases and roles lead to one name per version; an agent's retry goes to the recovery adapter."""
    route = asyncio.run(made()[0].route(asked, retries))
    assert (route.asked, route.answered, route.role) == (asked, answered, role)


@pytest.mark.parametrize(
    "asked", ["ocr", "", "agent:", "agent:nobody", "ocr@nobody", "/etc/passwd", "../a@b/c", "ocr@", "@7"]
)
def test_what_is_no_model_is_not_found(asked):
    """Anything else is a 404 with the parameter, and no path of the server's disk is ever looked at."""
    router, registry = made()
    with pytest.raises(ApiError) as caught:
        asyncio.run(router.route(asked))
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "model_not_found")
    assert all(reference.startswith("models:/") for reference in registry.asked)


def test_an_alias_is_asked_for_once_while_it_is_believed():
    """Many requests at once cost one look at the registry."""
    router, registry = made()

    async def many() -> None:
        await asyncio.gather(*(router.route("ocr@champion") for _ in range(50)))

    asyncio.run(many())
    assert registry.asked == ["models:/loraloop-ocr@champion"]


def test_a_moved_alias_is_followed():
    """After its time an alias is looked up again; an immutable version never is."""
    router, registry = made(seconds=0)

    async def before_and_after() -> list[str]:
        first = (await router.route("ocr@champion")).answered
        registry.champion = 8
        return [first, (await router.route("ocr@champion")).answered]

    assert asyncio.run(before_and_after()) == ["ocr@7", "ocr@8"]
    registry.asked.clear()
    asyncio.run(router.route("ocr@7"))
    asyncio.run(router.route("ocr@7"))
    assert len(registry.asked) == 1


def test_an_alias_stays_while_the_registry_is_away():
    """A registry that cannot be asked leaves what is known serving, and is a 503 for what is not."""
    router, registry = made(seconds=0)
    asyncio.run(router.route("ocr@champion"))
    registry.down = True
    assert asyncio.run(router.route("ocr@champion")).answered == "ocr@7"
    with pytest.raises(ApiError) as caught:
        asyncio.run(router.route("ocr@candidate"))
    assert caught.value.status == 503
    registry.down = False
    assert asyncio.run(router.route("ocr@candidate")).answered == "ocr@7"


def test_an_alias_that_was_taken_away_ends():
    """A registry that says that there is no such alias is believed at once."""
    router, registry = made(seconds=0)
    asyncio.run(router.route("ocr@champion"))
    router.versions.resolve = lambda reference: registry.resolve("models:/loraloop-ocr@nobody")
    with pytest.raises(ApiError, match="does not exist"):
        asyncio.run(router.route("ocr@champion"))


def test_the_registry_is_asked_off_the_event_loop():
    """A slow registry blocks no other request: it is asked in a thread."""
    router, registry = made()
    threads = []
    router.versions.resolve = lambda reference: (
        threads.append(threading.current_thread()) or registry.resolve(reference)
    )
    asyncio.run(router.route("ocr@champion"))
    assert threads
    assert threads[0] is not threading.main_thread()


def test_a_client_that_leaves_takes_no_look_up_with_it():
    """A look-up that several requests wait for goes on when the first of them is cancelled."""
    router, registry = made()
    gate = threading.Event()
    plain = registry.resolve
    router.versions.resolve = lambda reference: gate.wait(PATIENCE) and plain(reference)

    async def first_leaves() -> str:
        first, second = (asyncio.create_task(router.route("ocr@champion")) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        gate.set()
        return (await second).answered

    assert asyncio.run(first_leaves()) == "ocr@7"
