"""The rating page and the entry for programs, behind the server that they are part of."""

from __future__ import annotations

import html
import json
import re
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings, strategies

from loraloop.errors import StoreError
from loraloop.feedback.form import LARGEST_FORM, router
from loraloop.feedback.ratings import LONGEST_COMMENT, LONGEST_CORRECTION
from loraloop.serve import errors

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"' onfocus=alert(1) &amp; {{7777*7777}}"


@pytest.fixture
def site(file, make):
    """The routes with a kept session ``s1``, and a browser that has its link."""
    file.keep(make(prompt=[{"role": "user", "content": HOSTILE}], answer=f"answer {HOSTILE}"))
    app = FastAPI()
    app.include_router(router(file))
    errors.install(app, {}, {})
    with TestClient(app, raise_server_exceptions=False) as browser:
        yield SimpleNamespace(browser=browser, store=file, link=file.link("s1"))


TOOLS = [
    {"role": "user", "content": "Which code?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"place": "B7"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "<b>7F-2A</b>"},
    {"role": "assistant", "content": "It is 7F-2A."},
    {"role": "user", "content": "and below?"},
]
"""A conversation that goes on."""


def csrf(page: str) -> str:
    """The token in a page."""
    return re.search(r'name="csrf" value="([^"]+)"', page)[1]


def send(site, fields, link=None):
    """Open the page and send the form."""
    token = csrf(site.browser.get(site.link).text)
    return site.browser.post(
        link or site.link,
        content=urlencode({"csrf": token, **fields}, doseq=True),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )


def test_the_page_shows_the_answer_as_text(site):
    """Whatever prompt and answer hold is shown as text: no tag of theirs is one of the page's."""
    shown = site.browser.get(site.link)
    assert shown.status_code == 200
    for tag in ("<script", "<img"):
        assert tag not in shown.text
    assert HOSTILE in html.unescape(shown.text)
    assert "60481729" not in html.unescape(shown.text).replace(HOSTILE, "").partition("</style>")[2]


def test_the_page_runs_nothing(site):
    """The page's policy allows no script, no frame, no other target, and neither cache nor referrer keep its link."""
    headers = site.browser.get(site.link).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'nonce-")
    assert "script" not in policy
    assert "form-action 'self'; frame-ancestors 'none'" in policy
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def test_a_rating_is_kept(site):
    """What the form says is kept: stars, issues, comment, and the right answer as a proposal."""
    said = {"rating": 2, "issues": ["timeout", "other"], "comment": "slow\r\nand wrong", "correction": "3 heads\r\n"}
    sent = send(site, said)
    assert (sent.status_code, "Thank you" in sent.text) == (200, True)
    rating = site.store.session("s1").rating
    assert (rating.stars, rating.issues, rating.comment) == (2, ("timeout", "other"), "slow\nand wrong")
    assert [each.text for each in site.store.proposals()] == ["3 heads"]


def test_the_longest_texts_are_kept(site):
    """Texts of the greatest length fit into a form, whatever characters they are made of."""
    said = {"rating": 1, "comment": "😀" * LONGEST_COMMENT, "correction": "😀" * LONGEST_CORRECTION}
    assert send(site, said).status_code == 200
    assert site.store.proposals()[0].text == said["correction"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Choose one to five stars"),
        ({"rating": "6"}, "Choose one to five stars"),
        ({"rating": "good"}, "Choose one to five stars"),
        ({"rating": "3", "comment": "c" * (LONGEST_COMMENT + 1)}, "longer than 2000"),
        ({"rating": "3", "issues": "everything"}, "does not ask for"),
        ({"rating": "3", "admin": "1"}, "does not ask for"),
    ],
)
def test_a_form_that_cannot_be(site, fields, words):
    """A form that says something impossible comes back with the reason and what was written; nothing is kept."""
    sent = send(site, {"correction": "<b>mine</b>", **fields})
    assert sent.status_code == 400
    assert words in sent.text
    assert "&lt;b&gt;mine&lt;/b&gt;" in sent.text
    assert site.store.session("s1").rating is None


def test_a_link_used_twice(site):
    """After a rating the same link says so, to whoever opens it or sends its form again; the first rating stands."""
    token = csrf(site.browser.get(site.link).text)
    assert send(site, {"rating": 5}).status_code == 200
    assert "Rated already" in site.browser.get(site.link).text
    again = site.browser.post(site.link, content=urlencode({"csrf": token, "rating": 1}))
    assert (again.status_code, site.store.session("s1").rating.stars) == (409, 5)


def test_a_link_that_has_expired(site, monkeypatch):
    """An old link says that it is old, and rates nothing."""
    links = site.store.links
    now = links._signer.get_timestamp()
    monkeypatch.setattr(links._signer, "get_timestamp", lambda: now + 31 * 86_400)
    for answer in (site.browser.get(site.link), site.browser.post(site.link, content="rating=5")):
        assert (answer.status_code, "expired" in answer.text) == (410, True)
    assert site.store.session("s1").rating is None


def test_a_link_that_was_forged(site, file, make):
    """Without its proof, or with another session's, no page is shown and nothing is kept."""
    file.keep(make("s2"))
    other = site.link.replace("/s1?", "/s2?")
    for link in ("/rate/s1", "/rate/s1?token=", "/rate/s1?token=abc", other):
        for answer in (site.browser.get(link), site.browser.post(link, content="rating=5")):
            assert (answer.status_code, "does not work" in answer.text) == (403, True)
    assert site.store.session("s2").rating is None


def test_a_link_to_an_answer_that_was_not_kept(site):
    """A link is given before its answer is kept: until then the page says that there is none."""
    assert site.browser.get(site.store.link("later")).status_code == 404


def test_a_form_from_another_site(site):
    """A form without the page's token, with another browser's, or without the cookie, rates nothing."""
    token = csrf(site.browser.get(site.link).text)
    for fields in ({"rating": 5}, {"rating": 5, "csrf": "x"}, {"rating": 5, "csrf": token[:-1]}):
        assert site.browser.post(site.link, content=urlencode(fields)).status_code == 403
    site.browser.cookies.clear()
    assert site.browser.post(site.link, content=urlencode({"rating": 5, "csrf": token})).status_code == 403
    assert site.store.session("s1").rating is None


def test_a_body_that_is_too_large(site):
    """A form larger than all its fields can be is refused, and so is one with endless fields."""
    assert site.browser.post(site.link, content=b"comment=" + b"c" * LARGEST_FORM).status_code == 413
    assert site.browser.post(site.link, content="&".join(f"f{number}=1" for number in range(40))).status_code == 413


def test_a_store_that_is_away(site, monkeypatch):
    """While the database cannot be used the page asks to send the form again, and it can be."""
    token = csrf(site.browser.get(site.link).text)

    def fail(*_):
        raise StoreError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(site.store.database, "write", fail)
        sent = site.browser.post(site.link, content=urlencode({"csrf": token, "rating": 4}))
        told = site.browser.post("/v1/feedback", json={"session": "s1", "rating": 4})
    assert (told.status_code, told.json()["error"]["type"]) == (503, "server_error")
    assert (sent.status_code, "send it again" in sent.text) == (503, True)
    assert site.browser.post(site.link, content=urlencode({"csrf": token, "rating": 4})).status_code == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=strategies.binary(max_size=300), query=strategies.text(max_size=30))
def test_no_body_breaks_the_form(site, body, query):
    """Whatever is sent, to a good link or a bad one, the answer is a page and no rating."""
    for link in (site.link, f"/rate/s1?{urlencode({'token': query.encode('utf8', 'replace')})}"):
        answer = site.browser.post(link, content=body)
        assert 400 <= answer.status_code < 500
        assert answer.headers["content-type"].startswith("text/html")


def test_a_program_rates(site):
    """``/v1/feedback`` keeps a rating once."""
    told = {"session": "s1", "rating": 4, "comment": "off by 10 px", "issues": ["ocr_confidence_low"]}
    assert site.browser.post("/v1/feedback", json=told).json() == {"session": "s1", "rating": 4}
    assert site.store.session("s1").rating.issues == ("ocr_confidence_low",)
    again = site.browser.post("/v1/feedback", json=told)
    assert again.status_code == 409
    assert "rated already" in again.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"rating": 6}, 400, "rating"),
        ({"rating": 0}, 400, "rating"),
        ({"rating": True}, 400, "rating"),
        ({"rating": None}, 400, "rating"),
        ({"issues": ["everything"]}, 400, "issues[0]"),
        ({"comment": "c" * (LONGEST_COMMENT + 1)}, 400, "comment"),
        ({"stars": 4}, 400, "stars"),
        ({"session": "nobody"}, 404, None),
        ({"session": "s1\0"}, 404, None),
        ({"session": "\ud800"}, 400, "session"),
    ],
)
def test_a_program_that_is_wrong(site, change, status, param):
    """A rating of 6, an unknown issue, key or session gets OpenAI's error with status and parameter."""
    body = json.dumps({"session": "s1", "rating": 4} | change)
    answer = site.browser.post("/v1/feedback", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert site.store.session("s1").rating is None


def test_the_form_shows_the_conversation(site, make):
    """Every turn is shown in order, calls and results included, and what a person chooses is rated."""
    site.store.keep(make("s2", prompt=TOOLS, answer="9C"))
    site.link = site.store.link("s2")
    page = html.unescape(site.browser.get(site.link).text)
    shown = ["Which code?", 'read {"place": "B7"}', "Tool", "<b>7F-2A</b>", "It is 7F-2A.", "and below?", "9C"]
    places = [page.index(each) for each in shown]
    assert places == sorted(places)
    assert "<b>" not in site.browser.get(site.link).text
    refused = send(site, {"level": "conversation", "rating": 2, "correction": "9D"})
    assert (refused.status_code, "belongs to one answer" in refused.text) == (400, True)
    assert send(site, {"level": "conversation", "rating": 2}).status_code == 200
    assert site.store.session("s2").rating is None
    again = site.browser.get(site.link).text
    assert ("How good is this answer?" in again, "whole conversation" in again) == (True, False)
    assert send(site, {"rating": 5}).status_code == 200
    assert "Rated already" in site.browser.get(site.link).text
    found = site.store.session("s2")
    assert (found.stars, site.store.rated(found, "conversation").stars) == (5, 2)


def test_a_program_rates_a_conversation(site, make):
    """``level`` rates all of the conversation once; a correction is refused, and who rates is kept as a claim."""
    site.store.keep(make("s2", prompt=TOOLS))
    told = {"session": "chatcmpl-s2", "rating": 3, "level": "conversation"}
    wrong = site.browser.post("/v1/feedback", json=told | {"correction": "9D"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "correction")
    assert site.browser.post("/v1/feedback", json=told | {"level": "thread"}).status_code == 400
    assert site.browser.post("/v1/feedback", json=told | {"user": "bob"}).json() == told
    again = site.browser.post("/v1/feedback", json=told)
    assert (again.status_code, "the conversation of s2" in again.json()["error"]["message"]) == (409, True)
    assert site.store.session("s2").rating is None


@pytest.mark.parametrize(
    ("key", "scopes", "status"),
    [
        ("app", ("infer", "feedback"), 200),
        ("other", ("infer", "feedback"), 404),
        ("desk", ("feedback",), 200),
        ("boss", ("infer", "admin"), 200),
        (None, (), 200),
    ],
)
def test_who_may_rate_what(file, make, key, scopes, status):
    """A key that may ask rates its own sessions, and finds no others; a key for feedback alone rates every one."""
    file.keep(make("s1", asked_key="app"))
    app = FastAPI()
    app.include_router(router(file))
    errors.install(app, {}, {})

    @app.middleware("http")
    async def with_key(request, call_next):
        request.state.key, request.state.scopes = key, scopes
        return await call_next(request)

    with TestClient(app) as program:
        assert program.post("/v1/feedback", json={"session": "s1", "rating": 4}).status_code == status
    assert (file.session("s1").rating is not None) == (status == 200)
