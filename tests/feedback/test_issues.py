"""The issues of the rating form, as a person configures them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from loraloop.core.build import construct
from loraloop.core.session_file import ISSUES
from loraloop.errors import ConfigError
from loraloop.feedback import terminal
from loraloop.feedback.form import router
from loraloop.feedback.settings import Feedback
from loraloop.records import Rating
from loraloop.serve import errors

OWN = {"wrong_queue": "Wrong queue", "slow": "Too slow"}


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (None, ISSUES),
        (["wrong_queue", {"slow": "Too slow"}], OWN),
        ({"wrong_queue": None, "slow": "Too slow"}, OWN),
        (["ocr_confidence_low"], {"ocr_confidence_low": "OCR confidence low"}),
        ([], {}),
    ],
)
def test_a_list_or_a_map_of_issues(given, labels):
    """Issues are words, or words with labels, in their order; without any they are the shipped ones."""
    assert list(Feedback(issues=given).issues.items()) == list(labels.items())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["wrong queue"], "'wrong queue' is no word"),
        (["slow", "slow"], "slow is there twice"),
        ([{"slow": ""}], "the label of slow is a text of 1 to 200 characters"),
        (["Timeout"], "'Timeout' is read as timeout in session files; write timeout"),
        ("slow", "write a list of words"),
        ([f"i{n}" for n in range(31)], "31 issues, and a form has at most 30"),
    ],
)
def test_issues_that_cannot_be(given, words):
    """What is no list of words is refused under its key, with the rule."""
    with pytest.raises(ConfigError) as raised:
        construct(Feedback, {"issues": given}, "feedback")
    assert raised.value.problems[0].startswith("feedback.issues=")
    assert words in raised.value.problems[0]


@pytest.fixture
def site(tmp_path, make):
    """The routes over a store with own issues and the session ``s1``; ``s0`` was rated with a word of earlier times."""
    settings = Feedback(folder=tmp_path / "mlruns")
    before = settings.open()
    before.keep(make("s0"))
    before.rate("s0", Rating(stars=2, issues=("timeout",)))
    before.close()
    store = replace(settings, issues=["wrong_queue", {"slow": "Too slow"}]).open()
    store.keep(make("s1"))
    app = FastAPI()
    app.include_router(router(store))
    errors.install(app, {}, {})
    with TestClient(app) as browser:
        yield browser, store
    store.close()


def test_the_form_has_the_configured_issues(site):
    """The page offers the labels of feedback.issues and no others, keeps their words, and refuses another word."""
    browser, store = site
    page = browser.get(store.link("s1")).text
    assert re.findall(r'name="issues" value="(\w+)">([^<]+)<', page) == list(OWN.items())
    token = re.search(r'name="csrf" value="([^"]+)"', page)[1]
    other = browser.post(store.link("s1"), data={"csrf": token, "rating": "2", "issues": ["timeout"]})
    assert (other.status_code, "does not ask for" in other.text) == (400, True)
    sent = browser.post(store.link("s1"), data={"csrf": token, "rating": "2", "issues": ["slow", "wrong_queue"]})
    assert (sent.status_code, store.session("s1").issues) == (200, ("slow", "wrong_queue"))


def test_programs_and_the_terminal_have_the_configured_issues(site):
    """`/v1/feedback` and the command refuse a word that is none of feedback.issues, and name those that there are."""
    browser, store = site
    said = browser.post("/v1/feedback", json={"session": "s1", "rating": 2, "issues": ["slow", "timeout"]})
    assert (said.status_code, said.json()["error"]["param"]) == (400, "issues[1]")
    assert "feedback.issues has wrong_queue, slow" in said.json()["error"]["message"]
    with pytest.raises(
        ConfigError, match=r"issues=slo: no such issue \(did you mean slow\?\); feedback.issues has wron"
    ):
        terminal.checked(2, None, ["slo"], None, store.issues)
    assert store.session("s1").rating is None
    assert terminal.checked(2, None, ["slow"], None, store.issues).issues == ("slow",)


def test_issues_of_earlier_times_stay(site):
    """A rating that was kept with a word which the form no longer has is read as it was."""
    assert site[1].session("s0").issues == ("timeout",)
