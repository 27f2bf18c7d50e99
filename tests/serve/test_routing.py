"""From a model's name to the version that answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from loraloop.errors import ModelError, RegistryError, UnknownVersionError
from loraloop.records import Base, Manifest, Version
from loraloop.serve import refreshed, routing
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


def test_a_retry_without_a_recovery_adapter_goes_to_the_role():
    """Where the recovery role has no version, the role's own adapter answers its retries."""
    router, _ = made()
    router.roles = ROLES | {"recovery": "fix@nobody"}
    assert asyncio.run(router.route("agent:validator", 2)).answered == "ocr@7"
    assert asyncio.run(router.route("agent:validator", 0)).answered == "ocr@7"
    with pytest.raises(ApiError, match="fix@nobody"):
        asyncio.run(router.route("agent:recovery", 1))


def test_a_registry_that_hangs_delays_no_known_alias(monkeypatch):
    """A request by alias is answered by what is known while one question to the registry hangs."""
    monkeypatch.setattr(refreshed, "GRACE_SECONDS", 0)
    router, registry = made(seconds=0)
    gate, plain = threading.Event(), registry.resolve
    names = []

    def hang(reference: str) -> Version:
        names.append(reference)
        return gate.wait(PATIENCE) and plain(reference)

    async def ask() -> list[str]:
        first = (await router.route("ocr@champion")).answered
        router.versions.resolve = hang
        registry.champion = 8
        meanwhile = [(await router.route("ocr@champion")).answered for _ in range(20)]
        gate.set()
        while (await router.route("ocr@champion")).answered == first:
            await asyncio.sleep(0.01)
        return meanwhile

    assert set(asyncio.run(ask())) == {"ocr@7"}
    assert names[:1] == ["models:/loraloop-ocr@champion"]


def test_a_name_that_was_never_looked_up_is_not_waited_for_without_end(monkeypatch):
    """While the registry hangs, an unknown name is a 503 after its time, and at once where many wait already."""
    monkeypatch.setattr(refreshed, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(routing, "FIRST_AT_ONCE", 2)
    router, registry = made()
    gate, plain = threading.Event(), registry.resolve
    router.versions.resolve = lambda reference: gate.wait(PATIENCE) and plain(reference)

    async def ask() -> list[object]:
        try:
            asked = (router.route(f"ocr@a{number}") for number in range(3))
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            gate.set()

    told = asyncio.run(ask())
    assert [(each.status, each.code) for each in told] == [(503, "registry_unavailable")] * 3


@pytest.mark.fault(
    "champion cannot be loaded", "serve", "the version before goes on serving; log, metric and /readyz say so"
)
def test_an_alias_whose_version_cannot_be_loaded_stays(caplog):
    """It keeps serving the version before, says so once a minute at most, and follows when there is one that loads."""
    router, registry = made(seconds=0)
    tried, told = [], []

    def prepare(version: str) -> None:
        tried.append(version)
        if version == "ocr@8":
            raise ModelError("its weights hold NaN")

    router.prepare, router.on_behind = prepare, lambda name, behind: told.append((name, behind))

    async def follow() -> list[str]:
        answered = [(await router.route("ocr@champion")).answered]
        for registry.champion in (8, 8, 9, 9):
            answered.append((await router.route("ocr@champion")).answered)
            if registry.champion == 8:
                assert list(router.behind) == ["ocr@champion"]
        return answered

    assert asyncio.run(follow()) == ["ocr@7", "ocr@7", "ocr@7", "ocr@9", "ocr@9"]
    assert tried == ["ocr@8", "ocr@9"]
    assert told == [("ocr@champion", True), ("ocr@champion", False)]
    assert router.behind == {}
    assert "ocr@champion stays on ocr@7, because ocr@8 cannot be loaded: its weights hold NaN" in caplog.text
