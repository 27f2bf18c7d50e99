"""A server on loopback, in a thread of this process, over a backend that repeats what it is asked."""
# ruff: noqa: D102 (the methods are those of the protocols)

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from loraloop.errors import BusyError, DataError, ModelError, RegistryError, StoreError, UnknownVersionError
from loraloop.monitor.metrics import PrometheusMetrics
from loraloop.ocr.tesseract import Tesseract
from loraloop.records import Base, Chunk, GenerationRequest, Manifest, Session, Version
from loraloop.serve import run
from loraloop.serve.api import create_app
from loraloop.serve.names import Versions
from loraloop.serve.server import Server
from waiting import PATIENCE

ALIASES = {"loraloop-ocr@champion": 7, "loraloop-recovery@champion": 2}
NEVER = "never"
"""A prompt that the echo answers with one chunk and then nothing, until it is left."""


@dataclass
class Echo:
    """A backend whose answer is the prompt, a word a token, with the model's name before it."""

    places: int = 100
    there: list[str] = field(default_factory=lambda: ["base"])
    asked: list[GenerationRequest] = field(default_factory=list)
    answering: int = 0
    fault: Exception | None = None
    breaks: Exception | None = None
    """Raised after the first token."""
    damaged: set[str] = field(default_factory=set)
    reused: int = 0
    """Tokens of each prompt that it says were read before."""

    def check(self) -> None: ...

    def start(self) -> None: ...

    def close(self) -> None: ...

    def loaded(self) -> Sequence[str]:
        return list(self.there)

    def stats(self) -> Mapping[str, float]:
        return {"active": self.answering, "resident": len(self.there) - 1, "hits": 3, "misses": 1, "loads": 1}

    def load(self, model: str, version: Version) -> None:
        if version.manifest.rank > 64:
            raise ModelError(f"{model} has rank {version.manifest.rank}, more than serve.max_rank=64")
        self.there.append(model)

    def prepare(self, model: str) -> None:
        if model in self.damaged:
            raise ModelError(f"{model} is damaged")

    def longest_token(self) -> int | None:
        return None

    def knows(self, model: str) -> bool:
        return True

    def unload(self, model: str) -> None:
        self.there.remove(model)

    def forget(self) -> None: ...

    def tokens(self, prompt: str) -> int:
        return len(prompt.split()) + 1

    def text(self, ids: Sequence[int]) -> str:
        if any(token >= 1000 for token in ids):
            raise ModelError("1000 is no token")
        return " ".join(map(str, ids))

    def limit(self) -> int:
        return 2048

    def render(self, messages: Sequence[Mapping[str, Any]], model: str, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        offered = [f"offers {tool['function']['name']}" for tool in tools]
        return " ".join([*offered, *(f"{turn['role']}: {turn['content']}" for turn in messages)])

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        self.asked.append(request)
        if self.fault:
            raise self.fault
        if self.answering >= self.places:
            raise BusyError("the queue is full")
        self.answering += 1
        try:
            if request.echo:
                told = tuple((word, -0.5 if at else None, {}) for at, word in enumerate(request.prompt.split()))
                yield Chunk(
                    text=request.prompt, echo=True, logprobs=told, finish=None if request.max_tokens else "length"
                )
            if self.reused:
                yield Chunk(text="", reused=self.reused)
            words = [request.model, *request.prompt.split()][: request.max_tokens]
            for word in words:
                yield Chunk(text=f"{word} ", tokens=1, logprobs=((f"{word} ", -0.5, {f"{word} ": -0.5}),))
                await asyncio.sleep(0)
                if self.breaks:
                    raise self.breaks
                while NEVER in request.prompt:
                    await asyncio.sleep(0.01)
            if request.max_tokens:
                yield Chunk(text="", finish="length" if len(words) == request.max_tokens else "stop")
        finally:
            self.answering -= 1


@dataclass
class Memory:
    """Keeps sessions in a list, and fails on request."""

    kept: list[Session] = field(default_factory=list)
    full: bool = False

    async def keep_served(self, served: Session) -> None:
        if self.full:
            raise StoreError("no space left on device")
        self.kept.append(served)

    def session(self, session: str) -> Session:
        for each in self.kept:
            if each.id == session:
                return each
        raise DataError(f"there is no session {session!r}")

    def link(self, session: str) -> str:
        return f"/rate/{session}?signature=s"


@dataclass
class Registry:
    """A registry: versions by reference."""

    home: Path
    aliases: dict[str, int] = field(default_factory=lambda: dict(ALIASES))
    numbers: list[tuple[str, int]] = field(default_factory=list)
    down: bool = False
    asked: list[str] = field(default_factory=list)
    listings: int = 0
    answers: threading.Event = field(default_factory=threading.Event)
    """Cleared, it hangs."""

    def __post_init__(self) -> None:
        self.answers.set()

    def all_aliases(self) -> list[tuple[str, str, int]]:
        self.listings += 1
        self.answers.wait(PATIENCE)
        if self.down:
            raise RegistryError("the database is locked")
        return [(*name.split("@"), number) for name, number in self.aliases.items()]

    def resolve(self, reference: str) -> Version:
        self.asked.append(reference)
        self.answers.wait(PATIENCE)
        if self.down:
            raise RegistryError("the database is locked")
        if not reference.startswith("models:/"):
            return self._folder(Path(reference))
        name, _, at = reference.removeprefix("models:/").replace("/", "@").partition("@")
        number = int(at) if at.isdecimal() else self.aliases.get(f"{name}@{at}", 0)
        if name not in {"loraloop", "loraloop-ocr", "loraloop-recovery"} or not 1 <= number <= 9:
            raise UnknownVersionError(f"{reference}: no such version")
        return Version(name=name, number=number, aliases=(), path=self.home, manifest=manifest())

    def _folder(self, path: Path) -> Version:
        if not path.is_dir():
            raise RegistryError(f"{path} is neither a version nor a folder")
        found = manifest(int((path / "rank").read_text()))
        return Version(name=path.name, number=0, aliases=(), path=path, manifest=found)


def manifest(rank: int = 8) -> Manifest:
    base = Base(
        name="bundled:tiny", revision=None, sha256="b" * 64, tokenizer_sha256="c" * 64, chat_template_sha256=None,
        quantization="none", dtype="float32",
    )  # fmt: skip
    return Manifest(
        base=base, rank=rank, alpha=16.0, targets=("q_proj",), dataset_fingerprint="d" * 64, template="chat",
        run_id=None, parent_run_id=None, weights_sha256="0123456789ab" + "e" * 52, loraloop_version="0.1.0",
    )  # fmt: skip


@dataclass
class House:
    """A running server, and what stands behind it."""

    url: str
    http: httpx2.Client
    backend: Any
    sessions: Any
    registry: Registry
    metrics: PrometheusMetrics
    app: Any

    def post(self, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        return self.http.post(path, json=body, **more)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self.http.get(path, **more)

    def chat(self, text: Any = "one two", **body: Any) -> httpx2.Response:
        messages = body.pop("messages", [{"role": "user", "content": text}])
        return self.post("/v1/chat/completions", {"model": "base", "messages": messages, **body})

    def openai(self, key: str = "none") -> Any:
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)


@contextlib.contextmanager
def running(app: Any, settings: Server) -> Iterator[str]:
    """The application on a free port; leaving it stops the server as a signal would."""
    listening = settings.listen()
    server = run.server(app, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://{settings.host}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def opened(
    home: Path,
    backend: Any = None,
    sessions: Any = None,
    routers: Any = (),
    ocr: Any = None,
    speech: Any = None,
    rollouts: Any = tuple,
    **settings: Any,
):
    """A server with settings of its own."""
    values: dict[str, Any] = {
        "port": 0,
        "keys": home / "keys.json",
        "names": {"ocr": "loraloop-ocr", "recovery": "loraloop-recovery"},
        "roles": {"validator": "ocr@champion", "actor": "action@champion", "recovery": "recovery@champion"},
        "alias_seconds": 0.2,
        "rate": None,
        "drain_seconds": 2,
    }
    server = Server(**values | settings)
    registry, sessions, echo = Registry(home), sessions or Memory(), backend or Echo()
    metrics = PrometheusMetrics(echo.stats)
    versions = Versions(registry.resolve, server.names, aliases=registry.all_aliases, numbers=lambda: registry.numbers)
    app = create_app(echo, sessions, versions, server, metrics, routers, ocr, speech, rollouts)
    with running(app, server) as url, httpx2.Client(base_url=url, timeout=PATIENCE) as http:
        yield House(url, http, echo, sessions, registry, metrics, app)


@pytest.fixture
def house(tmp_path) -> Iterator[House]:
    """A server without keys."""
    with opened(tmp_path) as made:
        yield made


@pytest.fixture
def build(tmp_path) -> Iterator[Callable[..., House]]:
    """A function that starts a server with settings of its own."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(opened(tmp_path, **settings))


@pytest.fixture(scope="session")
def reader(tmp_path_factory) -> Iterator[House]:
    """One that reads images too."""
    with opened(tmp_path_factory.mktemp("reader"), ocr=Tesseract(cache=None, workers=1)) as made:
        yield made


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Iterator[House]:
    """A server whose state nobody looks at."""
    with opened(tmp_path_factory.mktemp("shared")) as made:
        yield made
