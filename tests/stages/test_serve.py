"""Stage ``serve``, as a person runs it."""

from __future__ import annotations

import contextlib
import json
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

PROMPT = "Count the heads and tails.\nHHTTHHHHHHHTHTHHTTTTHHHHTHTTTHHT"
RIGHT = "19 heads, 13 tails"
QUIET = ("tracker=none", "server.port=0")


@contextmanager
def serving(desk, *overrides: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server in a process of its own, and its address."""
    process = desk.start("stage=serve", *QUIET, *overrides)
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.strip().startswith("stop"):
                break
        else:
            raise AssertionError("".join(lines) + process.stderr.read())
        (address,) = [line.split()[1] for line in lines if line.strip().startswith("address")]
        yield process, address.removesuffix("/v1")
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
    with serving(finished, "server.roles.validator=loraloop@champion") as (process, url):
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
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "stopped\n"), err
    sessions = [(each["answered"], each["role"], each["status"]) for each in kept(finished)]
    assert sessions == [("loraloop@1", None, "ok"), ("base", None, "ok"), ("loraloop@1", "validator", "ok")]
    assert PROMPT not in err


def test_an_acknowledged_answer_outlives_the_server(office):
    """After kill -9 every answer that a client has is on disk."""
    with serving(office) as (process, url):
        client = Client(url)
        sessions = []
        for _ in range(5):
            client.ask("copy\nopen the gate", temperature=0)
            sessions.append(client.session)
        process.kill()
    assert set(sessions) <= {each["id"] for each in kept(office)}


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
        client.ask(PROMPT, temperature=0)
        metrics = httpx2.get(f"{url}/metrics").text
        loop.advance(cycle, Event(name="stop", version=2, reason="undecided"))
        client.ask(PROMPT, temperature=0)
        found = [(each.answered, each.rollout, each.success, each.rater) for each in store.outcomes()]
        store.close()
    answered = ("loraloop@1", None, True, "ann")
    assert found == [answered, ("loraloop@2", cycle.rollout, False, "ann"), answered, answered]
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
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "stopped\n")
    assert any("scheduled: loraloop: validator has no champion" in line for line in said), said


def test_the_server_takes_the_policy_of_its_ticks(desk):
    """What a tick takes, as a policy and its figures, is also understood by the server that is to hand it on."""
    given = ("policy=seed", "policy.roles=[actor]", "canary.share=0.3", "alerts.urls=json://127.0.0.1")
    assert desk("stage=serve", "schedule.every=4h", *given, "--cfg", "job").code == 0
    assert desk("stage=tick", *given, "--cfg", "job").code == 0
