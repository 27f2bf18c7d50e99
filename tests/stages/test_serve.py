"""Stage ``serve``, as a person runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from openai import OpenAI

from loraloop.client import Client
from loraloop.feedback.settings import Feedback
from loraloop.loop.cycle import Event
from loraloop.loop.store import LoopStore
from loraloop.registry.mlflow import MlflowRegistry
from waiting import PATIENCE, until

PROMPT = "Count the heads and tails.\nHHTTHHHHHHHTHTHHTTTTHHHHTHTTTHHT"
RIGHT = "19 heads, 13 tails"
QUIET = ("tracker=none", "server.port=0")


@contextmanager
def serving(desk, *overrides: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server in a process of its own, and its address."""
    with started(desk, *overrides) as (process, lines):
        yield process, facts(lines)["address"].removesuffix("/v1")


def facts(lines: list[str]) -> dict[str, str]:
    """What the server said at its start, by the first word of a line."""
    return {line.split()[0]: line.strip().partition(" ")[2].strip() for line in lines if line.startswith("  ")}


@contextmanager
def started(desk, *overrides: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The server in a process of its own, and the lines that it printed at its start."""
    process = desk.start("stage=serve", *QUIET, *overrides)
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.strip().startswith("stop"):
                break
        else:
            raise AssertionError("".join(lines) + process.stderr.read())
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def kept(desk) -> list[dict]:
    """The sessions on disk."""
    with contextlib.closing(sqlite3.connect(desk.folder / "mlruns" / "sessions.db")) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM sessions ORDER BY time")]
    return [row | {"answer": json.loads(row["answer"])} for row in rows]


def test_a_trained_adapter_is_served(finished):
    """The default command's champion answers beside its base, as a version and as an agent.

    On SIGTERM an answer that has begun comes to its end, and the server leaves with a clean status.
    """
    patient = ("server.drain_seconds=600", "server.deadline_seconds=600", "serve.deadline_seconds=600")
    with serving(finished, "server.roles.validator=loraloop@champion", *patient) as (process, url):
        official = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        asked = {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0}
        champion = official.chat.completions.create(model="loraloop@champion", **asked)
        assert (champion.model, champion.choices[0].message.content) == ("loraloop@1", RIGHT)
        assert official.chat.completions.create(model="base", **asked).choices[0].message.content != RIGHT
        client = Client(url, agent="validator")
        assert {"base", "loraloop@1", "agent:validator"} <= set(client.models())
        stream = client.stream(PROMPT, temperature=0)
        first = next(stream)
        process.send_signal(signal.SIGTERM)
        assert first + "".join(stream) == RIGHT
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "stopped\n"), err
    sessions = [(each["answered"], each["role"], each["status"]) for each in kept(finished)]
    assert sessions == [("loraloop@1", None, "ok"), ("base", None, "ok"), ("loraloop@1", "validator", "ok")]
    assert PROMPT not in err


def test_what_is_registered_is_listed_and_served_without_settings(finished):
    """After the default command the server lists its champion, not an adapter of another base, and answers for it.

    The command that the server prints at its start asks that champion.
    """
    foreign = MlflowRegistry(folder=finished.folder / "mlruns", name="foreign")
    version = dataclasses.replace(foreign, name="loraloop").champion()
    base = dataclasses.replace(version.manifest.base, sha256="0" * 64)
    foreign.register(version.path, dataclasses.replace(version.manifest, base=base))
    with started(finished) as (_, lines):
        said = facts(lines)
        assert said["models"] == "base; loraloop@candidate: loraloop@1; loraloop@champion: loraloop@1"
        command, address, *options = shlex.split(said["try"])
        assert (command, options[0::2]) == ("curl", ["-H", "-d"])
        content = httpx2.Headers([options[1].split(": ")])
        answer = httpx2.post(address, headers=content, content=options[3], timeout=PATIENCE).json()
        assert answer["model"] == "loraloop@1", answer
        client = Client(address.removesuffix("/v1/chat/completions"), adapter="loraloop@champion")
        assert client.ask(PROMPT, temperature=0) == RIGHT
        assert set(client.models()) == {"base", "loraloop@1", "loraloop@candidate", "loraloop@champion"}


def test_an_acknowledged_answer_outlives_the_server(office):
    """After kill -9 every answer that a client has is on disk, and those that no trace was made of are sent then."""
    with started(office, "tracing.mlflow=true", "tracing.seconds=3000") as (process, lines):
        assert facts(lines)["traces"] == "to MLflow (mlruns/mlflow.db, loraloop-answers)"
        url = facts(lines)["address"].removesuffix("/v1")
        client = Client(url)
        sessions = []
        for _ in range(5):
            client.ask("copy\nopen the gate", temperature=0)
            sessions.append(client.session)
        process.kill()
    assert set(sessions) <= {each["id"] for each in kept(office)}
    assert office("stage=traces", "tracing.mlflow=true").line("mlflow").startswith("5 answers")


def test_what_another_process_erases_is_forgotten(desk):
    """A prompt that the server has read is read anew once ``stage=forget`` erased the session that it was asked in."""
    with serving(desk) as (_, url):
        official = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

        def known() -> int:
            asked = {"model": "base", "prompt": PROMPT, "max_tokens": 1, "user": "ann"}
            return official.completions.create(**asked).usage.prompt_tokens_details.cached_tokens

        assert [known() > 0 for _ in range(2)] == [False, True]
        desk("stage=forget", "client=ann", "confirm=true", "tracker=none")
        until(lambda: known() == 0, "the prompt is read anew")


def test_settings_that_cannot_be(desk):
    """Wrong settings are told together, before anything is loaded."""
    seen = desk.attempt("stage=serve", "server.rate=often", "server.roles.actor=ocr", "server.port=99999")
    assert seen.code == 2
    for words in ("server.rate='often'", "ocr@champion", "server.port=99999"):
        assert words in seen.err


def test_a_vllm_server_that_is_away(desk):
    """``serve=vllm`` asks the other server first, and says how to start it."""
    seen = desk.attempt("stage=serve", *QUIET, "serve=vllm", "serve.url=http://127.0.0.1:9")
    assert seen.code == 2
    assert "vllm serve" in seen.err


def outcomes(store, rollout: str) -> list:
    """What the sessions of a rollout say."""
    return store.outcomes(rollout=rollout)


def test_a_rollout_goes_to_the_server(finished):
    """A rollout in the database splits the traffic of a running server, and its end ends that.

    Its version is none that the registry knows: each conversation that it gets is answered by the stable one, and the
    failure is kept.
    """
    with serving(finished, "server.roles.validator=loraloop@champion", "server.alias_seconds=0") as (_, url):
        client = Client(url, agent="validator", user="ann", conversation="talk")
        client.ask(PROMPT, temperature=0)
        store = Feedback(folder=finished.folder / "mlruns").open()
        loop = LoopStore(store.database)
        chosen = Event(name="rollout", version=2, reason="chosen by hand", alias="canary")
        cycle = loop.choose("validator", "loraloop", 1, 2, "default", 1.0, chosen)
        until(lambda: client.ask(PROMPT, temperature=0) and outcomes(store, cycle.rollout), "the rollout is seen")
        metrics = httpx2.get(f"{url}/metrics", timeout=PATIENCE).text
        loop.advance(cycle, Event(name="stop", version=2, reason="undecided"))
        seen = len(outcomes(store, cycle.rollout)) + 1  # one question to the database may be under way
        for _ in range(3):
            client.ask(PROMPT, temperature=0)
        found = outcomes(store, cycle.rollout)
        whole = [(each.answered, each.rollout, each.success, each.rater) for each in store.outcomes()]
        store.close()
    answered = ("loraloop@1", None, True, "ann")
    assert set(whole) == {answered, ("loraloop@2", cycle.rollout, False, "ann")}
    assert (whole[0], whole[-1]) == (answered, answered)
    assert len(found) <= seen
    assert 'loraloop_canary_share{role="validator"} 1.0' in metrics


def test_the_loop_goes_on_beside_the_server(office):
    """With a schedule the loop's step is taken with the server's own settings; that it fails ends no answer."""
    with serving(office, "schedule.every=1s", "serve.max_batch=2", "server.max_tokens=20") as (process, url):
        said = []
        for line in process.stderr:
            said.append(line)
            if "scheduled command ended" in line:
                break
        Client(url).ask("copy\nopen the gate", temperature=0)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "stopped\n")
    assert any("scheduled: loraloop: validator has no champion" in line for line in said), said


def test_the_server_takes_the_policy_of_its_ticks(desk):
    """What a tick takes, as a policy and its figures, is also understood by the server that is to hand it on."""
    given = ("policy=seed", "policy.roles=[actor]", "canary.share=0.3", "alerts.urls=json://127.0.0.1")
    assert desk("stage=serve", "schedule.every=4h", *given, "--cfg", "job").code == 0
    assert desk("stage=tick", *given, "--cfg", "job").code == 0
