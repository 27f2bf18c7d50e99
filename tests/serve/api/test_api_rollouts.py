"""Conversations, clients and rollouts over HTTP, and a new version that cannot answer."""

from __future__ import annotations

import pytest

from loraloop.client import Client
from loraloop.errors import BusyError, ModelError, RegistryError
from loraloop.feedback.settings import Feedback
from loraloop.records import Rollout
from loraloop.serve.keys import Keys
from loraloop.tracing import spans

MESSAGES = [{"role": "user", "content": "one two"}]
HALF = Rollout(
    id="r1", role="validator", model="loraloop-ocr", stable=7, canary=8, share=0.5, began="2026-11-20T10:00:00+00:00"
)
NEW, OLD = (next(name for name in "abcdefghij" if HALF.version(name) == number) for number in (8, 7))
"""Two conversations: the rollout gives one to the new version and the other to the stable one."""


@pytest.fixture
def house(build):
    """A server with a rollout under way."""
    return build(rollouts=lambda: [HALF])


def ask(house, conversation: str | None = None, **body):
    """An answer of the validator's adapter."""
    metadata = {"conversation": conversation} if conversation else {}
    return house.chat(model="agent:validator", metadata=metadata, **body)


def broken(house, fault: Exception, *models: str):
    """Let some versions be unable to begin an answer."""
    plain = house.backend.generate

    async def generate(ask):
        if ask.model in models:
            raise fault
        async for chunk in plain(ask):
            yield chunk

    house.backend.generate = generate


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("name", ["user", "safety_identifier"])
def test_a_session_knows_its_conversation_and_client(house, path, name):
    """Conversation and client, by either of its names, are kept with the session; the rollout is in a header too."""
    content = {"messages": MESSAGES} if "chat" in path else {"prompt": "x"}
    told = {name: "ann", "metadata": {"conversation": NEW}}
    response = house.post(path, {"model": "ocr@champion", **content, **told})
    (kept,) = house.sessions.kept
    assert (kept.conversation, kept.client, kept.rollout, kept.answered) == (NEW, "ann", "r1", "ocr@8")
    assert response.headers["x-loraloop-rollout"] == "r1"


def test_a_session_of_its_own(house):
    """Without a conversation the session's own id chooses; nobody is guessed to be the client."""
    for _ in range(20):
        ask(house)
    assert {kept.answered for kept in house.sessions.kept} == {"ocr@7", "ocr@8"}
    for kept in house.sessions.kept:
        assert kept.answered == f"ocr@{HALF.version(kept.id)}"
        assert (kept.conversation, kept.client, kept.rollout) == (None, None, "r1")


def test_what_no_rollout_chose_says_so(house):
    """An answer of the base or of a pinned version carries no rollout, in no header and no session."""
    for model in ("base", "ocr@7"):
        response = house.chat(model=model, metadata={"conversation": NEW})
        assert "x-loraloop-rollout" not in response.headers
    assert [kept.rollout for kept in house.sessions.kept] == [None, None]


def test_the_keys_name_is_the_client(build, tmp_path):
    """Where a request does not say who asks, its key does."""
    secret = Keys(tmp_path / "keys.json").add("ci", ["infer"])
    house = build()
    bearer = {"authorization": f"Bearer {secret}"}
    for user in (None, "ann"):
        house.post("/v1/chat/completions", {"model": "base", "messages": MESSAGES, "user": user}, headers=bearer)
    assert [kept.client for kept in house.sessions.kept] == ["ci", "ann"]


def test_a_conversation_in_a_header(house):
    """A header names the conversation where the metadata does not; one that is too long is refused."""
    for metadata in (None, {"conversation": "told"}):
        body = {"model": "base", "messages": MESSAGES, "metadata": metadata}
        house.post("/v1/chat/completions", body, headers={"x-loraloop-conversation": "heard"})
    assert [kept.conversation for kept in house.sessions.kept] == ["heard", "told"]
    long = {"x-loraloop-conversation": "c" * 257}
    assert house.post("/v1/chat/completions", {"model": "base", "messages": MESSAGES}, headers=long).status_code == 400


def test_the_models_page_names_the_stable_version(house):
    """What a role leads to is told without a rollout's luck."""
    assert house.get("/v1/models/agent:validator").json()["root"] == "ocr@7"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [ModelError("damaged"), RegistryError("its folder is gone"), KeyError("x")])
def test_a_new_version_that_cannot_answer(house, caplog, stream, fault):
    """The stable version answers instead, outside of the rollout; the failure is kept as the new version's session."""
    broken(house, fault, "ocr@8")
    response = ask(house, NEW, stream=stream, user="ann")
    assert response.status_code == 200
    assert "ocr@7 " in response.text
    assert "x-loraloop-rollout" not in response.headers
    failed, given = house.sessions.kept
    assert (failed.answered, failed.status, failed.rollout, failed.answer) == ("ocr@8", "error", "r1", "")
    assert (given.answered, given.status, given.rollout) == ("ocr@7", "ok", None)
    assert (failed.conversation, failed.client) == (given.conversation, given.client) == (NEW, "ann")
    assert response.headers["x-loraloop-session"] == given.id != failed.id
    assert str(fault) in caplog.text
    text = house.metrics.text().decode()
    assert 'loraloop_sessions_total{model="ocr@8",status="error"} 1.0' in text
    assert 'loraloop_sessions_total{model="ocr@7",status="ok"} 1.0' in text


def test_a_new_version_whose_template_is_out_of_reach(house):
    """An adapter that is gone before its prompt could be written is a failure of the new version too."""
    plain = house.backend.render

    def render(messages, model, tools=()):
        if model == "ocr@8":
            raise RegistryError("its folder is gone")
        return plain(messages, model, tools)

    house.backend.render = render
    assert ask(house, NEW).json()["model"] == "ocr@7"
    assert [(kept.answered, kept.status) for kept in house.sessions.kept] == [("ocr@8", "error"), ("ocr@7", "ok")]
    assert house.backend.answering == 0


def test_a_stable_version_that_cannot_answer(house):
    """Nobody stands in for the stable version: its failure is an error and a session of the rollout's."""
    broken(house, ModelError("the adapter is damaged"), "ocr@7")
    assert ask(house, OLD).status_code == 503
    assert [(kept.answered, kept.status, kept.rollout) for kept in house.sessions.kept] == [("ocr@7", "error", "r1")]


def test_when_neither_can_answer(house):
    """If the stable version fails as well, that is the answer, and both failures are kept."""
    broken(house, ModelError("the disk is gone"), "ocr@7", "ocr@8")
    assert ask(house, NEW).status_code == 503
    assert [(kept.answered, kept.rollout) for kept in house.sessions.kept] == [("ocr@8", "r1"), ("ocr@7", None)]


def test_a_full_queue_is_no_failure_of_a_version(house):
    """A client that is told to come back was not served: no session, and no second try with the stable version."""
    broken(house, BusyError("the queue is full"), "ocr@8")
    assert ask(house, NEW).status_code == 429
    assert house.sessions.kept == []


def test_a_session_in_the_database(build, tmp_path):
    """Conversation, client and rollout reach the store, and its outcomes say which version each answered."""
    store = Feedback(folder=tmp_path).open()
    house = build(sessions=store, rollouts=lambda: [HALF])
    for conversation in (NEW, OLD, NEW):
        ask(house, conversation, user="ann")
    found = [(each.conversation, each.answered, each.rater, each.success) for each in store.outcomes(rollout="r1")]
    assert found == [(NEW, "ocr@8", "ann", True), (OLD, "ocr@7", "ann", True), (NEW, "ocr@8", "ann", True)]
    store.close()


@pytest.mark.parametrize("key", [None, "ci"])
def test_a_chain_of_responses_is_one_conversation(build, tmp_path, key):
    """Responses that go on from each other are answered by one version, linked and one unit, without a name."""
    secret = Keys(tmp_path / "keys.json").add(key, ["infer"]) if key else "none"
    store = Feedback(folder=tmp_path).open()
    responses = build(sessions=store, rollouts=lambda: [HALF]).openai(secret).responses
    chains: list = []
    while len({chain[0].answered for chain in chains}) < 2:  # the id of the first response chooses
        chain = [responses.create(model="agent:validator", input="one")]
        chain += [responses.create(model="agent:validator", input="so", previous_response_id=chain[-1].id)]
        chain += [responses.create(model="agent:validator", input="so", previous_response_id=chain[-1].id)]
        chains.append([store.session(each.id.removeprefix("resp_")) for each in chain])
    found = store.outcomes(rollout="r1")
    store.close()
    assert [len({each.answered for each in chain}) for chain in chains] == [1] * len(chains)
    assert [{each.conversation_id for each in chain} for chain in chains] == [{chain[0].id} for chain in chains]
    assert [len({spans.common(each)["session.id"] for each in chain}) for chain in chains] == [1] * len(chains)
    assert len({each.conversation for each in found}) == len(chains)


def test_the_client_tells_who_and_what(house):
    """The package's client sends user and conversation with every request, and they may be set anew."""
    client = Client(house.url, agent="validator", user="ann", conversation=NEW)
    client.ask("one", retries=0)
    list(client.stream("two"))
    client.conversation, client.user = OLD, None
    client.ask("three", user="bob")
    told = [(kept.conversation, kept.client, kept.answered) for kept in house.sessions.kept]
    assert told == [(NEW, "ann", "ocr@8"), (NEW, "ann", "ocr@8"), (OLD, "bob", "ocr@7")]
    assert client.ask("four", retries=1) == "recovery@2 user: four "
    assert (house.sessions.kept[-1].conversation, house.sessions.kept[-1].retries) == (OLD, 1)
