"""loraloop's own client, on a server over loopback."""

from __future__ import annotations

import openai
import pytest

from loraloop.client import Client
from loraloop.errors import ConfigError
from loraloop.feedback.form import router
from loraloop.feedback.settings import Feedback


def test_it_switches_adapters(shared):
    """One client asks the base, an alias and an agent's adapter in turn, and knows which version answered."""
    client = Client(shared.url)
    assert (client.ask("hi"), client.answered) == ("base user: hi ", "base")
    assert (client.switch("ocr@champion").ask("hi"), client.answered) == ("ocr@7 user: hi ", "ocr@7")
    assert client.switch(agent="validator").ask("hi", retries=1) == "recovery@2 user: hi "
    assert client.switch().ask("hi") == "base user: hi "
    assert Client(shared.url, agent="validator").ask("hi") == Client(shared.url, adapter="ocr@7").ask("hi")


def test_it_streams(house):
    """The pieces of a stream are the text of the answer, and the session is known before the first."""
    client = Client(house.url, adapter="ocr@7")
    pieces = client.stream([{"role": "user", "content": "one two"}], max_tokens=3)
    assert next(pieces) == "ocr@7 "
    assert client.session
    assert "".join(pieces) == "user: one "
    assert house.sessions.kept[0].id == client.session
    assert client.answered == "ocr@7"


def test_it_rates_an_answer(build, tmp_path):
    """A rating goes to the session of the last answer, or to the one that is named, and each has one."""
    store = Feedback(folder=tmp_path).open()
    house = build(sessions=store, routers=[router(store)])
    client = Client(house.url)
    client.ask("one")
    first = client.session
    client.ask("two")
    assert "base user: two" in house.get(client.link).text
    client.rate(4, "off by 10 px", ["ocr_confidence_low"])
    client.rate(2, session=first)
    rated = store.session(client.session).rating
    assert (rated.stars, rated.comment, rated.issues) == (4, "off by 10 px", ("ocr_confidence_low",))
    assert store.session(first).rating.stars == 2
    with pytest.raises(openai.ConflictError, match="rated already"):
        client.rate(5)
    with pytest.raises(openai.BadRequestError, match="rating"):
        client.rate(6)
    store.close()


def test_there_is_nothing_to_rate(shared):
    """Rating before an answer is an error that says what to do."""
    with pytest.raises(ConfigError, match="ask first"):
        Client(shared.url).rate(5)


def test_an_adapter_or_an_agent():
    """Both at once contradict each other."""
    with pytest.raises(ConfigError, match="give one of them"):
        Client(adapter="ocr@7", agent="validator")


def test_errors_are_the_official_clients(shared):
    """What the server refuses is raised as the official client raises it."""
    with pytest.raises(openai.NotFoundError):
        Client(shared.url, adapter="nobody@1").ask("hi")


def test_it_lists_models(shared):
    """The names that answer now."""
    assert "base" in Client(shared.url).models()
