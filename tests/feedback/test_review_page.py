"""The page ``/review``: who may see it, what it shows, and what is decided on it."""

from __future__ import annotations

import html
import re
from functools import partial
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from loraloop.feedback import erasure
from loraloop.feedback.review_page import router
from loraloop.feedback.review_queue import Queue
from loraloop.records import Assessment, Rating
from loraloop.serve import errors
from loraloop.serve.guard import Guard
from loraloop.serve.keys import Keys
from loraloop.serve.server import Server
from loraloop.workflows import proposals

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"' onfocus=alert(1) &amp; {{7777*7777}}"
TOOLS = [{"type": "function", "function": {"name": f"read{HOSTILE}", "description": HOSTILE, "parameters": {
    "type": "object", "properties": {"region": {"type": "string", "description": HOSTILE}}}}}]  # fmt: skip
READ = [{"type": "function", "function": {"name": "read", "parameters": {
    "type": "object", "properties": {"region": {"type": "string"}, "scale": {"type": "integer"}},
    "required": ["region"]}}}]  # fmt: skip
CALL = '<tool_call>{"name": "read", "arguments": {"region": "upper"}}</tool_call>'


@pytest.fixture
def site(file, make, tmp_path):
    """The routes with three proposals, and a browser without a key."""
    keys = Keys(tmp_path / "keys.json")
    for at, name in enumerate(("s1", "s2", "s3"), 1):
        file.keep(make(name, prompt=[{"role": "user", "content": f"task of {name}"}], answer=f"wrong {name}"))
        file.rate(name, Rating(stars=at, comment=f"not {name}", correction=f"right {name}", issues=("timeout",)))
    app = FastAPI()
    app.include_router(router(file, partial(proposals.waiting, file, Queue()), keys))
    errors.install(app, {}, {})
    with TestClient(app, follow_redirects=False) as browser:
        yield SimpleNamespace(browser=browser, store=file, keys=keys, secret=keys.add("ann", ["review"]))


def post(browser, path, **fields):
    """Open a page and send its form."""
    token = re.search(r'name="csrf" value="([^"]+)"', browser.get(path).text)[1]
    return send(browser, path, csrf=token, **fields)


def send(browser, path, **fields):
    """Send a form."""
    given = {name.replace("__", "."): value for name, value in fields.items()}
    return browser.post(path, content=urlencode(given), headers={"content-type": "application/x-www-form-urlencoded"})


@pytest.fixture
def ann(site):
    """A browser in which Ann has given her key."""
    entered = post(site.browser, "/review", key=site.secret)
    assert (entered.status_code, entered.headers["location"]) == (303, "/review")
    return site.browser


def test_without_a_key_nothing_is_shown(site):
    """No page shows a session, and no form decides, without a key of the scope ``review``; others are refused."""
    for path in ("/review", "/review/1", "/review/9"):
        seen = site.browser.get(path)
        assert (seen.status_code, "task of" in seen.text, "scope <code>review" in seen.text) == (401, False, True)
    assert post(site.browser, "/review/1", decision="accept").status_code == 401
    for secret in ("", "ll-wrong", site.keys.add("app", ["infer", "feedback", "registry"])):
        assert post(site.browser, "/review", key=secret).status_code == 403
    assert site.browser.get("/review").status_code == 401
    assert site.store.session("s1").correction is None
    assert post(site.browser, "/review", key=site.keys.add("boss", ["admin"])).status_code == 303


def test_the_key_is_in_no_page_address_or_cookie(ann, site):
    """The cookie is signed, closed to scripts and to other sites' forms, and neither it nor a page holds the key."""
    entered = post(ann, "/review", key=site.secret)
    cookie = entered.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Path=/review", "Max-Age=43200"))
    shown = ann.get("/review/1")
    for text in (cookie, shown.text, str(shown.headers), str(entered.headers), str(entered.url)):
        assert site.secret not in text
    assert (shown.headers["cache-control"], shown.headers["referrer-policy"]) == ("no-store", "no-referrer")
    nonce = re.search(r"script-src 'nonce-([^']+)'", shown.headers["content-security-policy"])[1]
    assert re.findall(r"<script[^>]*>", shown.text) == [f'<script nonce="{nonce}">']


def test_a_revoked_key_opens_nothing_from_then_on(ann, site):
    """The cookie of a key that was taken back, or replaced by one of the same name, or changed, opens nothing."""
    site.keys.revoke("ann")
    assert ann.get("/review").status_code == 401
    site.keys.add("ann", ["review"])
    assert ann.get("/review").status_code == 401
    ann.cookies.set("loraloop_review", "forged.by.hand", path="/review")
    assert ann.get("/review").status_code == 401


def test_leaving_takes_the_cookie_back(ann):
    """After ``Leave`` the page asks for a key."""
    assert post(ann, "/review", leave="1").status_code == 303
    assert ann.get("/review").status_code == 401


def test_a_form_from_elsewhere_decides_nothing(ann, site):
    """Without the token of its page, or with that of another browser, a form is refused."""
    with TestClient(site.browser.app) as other:
        stranger = re.search(r'name="csrf" value="([^"]+)"', other.get("/review").text)[1]
    for token in ("", "x", stranger):
        assert send(ann, "/review/1", csrf=token, decision="accept").status_code == 403
    assert site.store.session("s1").correction is None


def test_behind_the_servers_guard(site, tmp_path):
    """Where the server asks for keys the page does; where it asks for none, this machine alone sees it, without one."""
    unused = SimpleNamespace(began=lambda: None, ended=lambda *_: None)
    seen = []
    for keys, client in (("keys.json", "127.0.0.1"), ("none.json", "127.0.0.1"), ("none.json", "10.0.0.1")):
        app = FastAPI()
        app.include_router(router(site.store, partial(proposals.waiting, site.store, Queue()), site.keys))
        app.add_middleware(Guard, routes=app.routes, settings=Server(keys=tmp_path / keys), metrics=unused)
        with TestClient(app, "http://127.0.0.1", client=(client, 5000), follow_redirects=False) as browser:
            seen.append(browser.get("/review/1").status_code)
            if seen[-1] == 200:
                assert post(browser, "/review/1", decision="accept").status_code == 303
    assert seen == [401, 200, 403]
    assert site.store.session("s1").correction == "right s1"


def test_the_list_is_in_the_order_of_the_queue(ann, site):
    """What waits is listed as ``stage=review`` lists it, with what is known of each."""
    site.store.assess("s3", [Assessment(id="", source="judge", by="m", kind="feedback", name="score:0", value=1)])
    shown = ann.get("/review").text
    order = [int(each) for each in re.findall(r'href="/review/(\d)"', shown)]
    assert order == [each.proposal.id for each in proposals.waiting(site.store, Queue())] == [3, 1, 2]
    assert "3 corrections wait" in shown
    assert "3 stars, judge 1 of 5" in shown


def test_a_proposal_with_all_that_is_known(ann, site):
    """The page has the conversation, stars, issues, comment, the judge's verdict and the difference word by word."""
    said = Assessment(id="", source="judge", by="m", kind="feedback", name="score:0", value=2, rationale="too short")
    site.store.assess("s1", [said])
    shown = re.sub(r"<(?!/?(ins|del)\b)[^>]+>", "", html.unescape(ann.get("/review/1").text))
    for words in ("task of s1", "wrong s1", "1 of 5", "Timeout", "not s1", "m gave 2 of 5: too short",
                  "<del>wrong</del><ins>right</ins> s1"):  # fmt: skip
        assert words.casefold() in shown.casefold()


@pytest.mark.parametrize(
    ("decision", "fields", "correction", "left"),
    [
        ("accept", {}, "right s1", 2),
        ("edit", {"text": " better\r\nyet "}, "better\nyet", 2),
        ("edit", {"text": "right s1"}, "right s1", 2),
        ("reject", {}, None, 2),
        ("skip", {}, None, 3),
    ],
)
def test_a_decision_goes_where_the_terminals_go(ann, site, decision, fields, correction, left):
    """Each button does what its key does in ``stage=review``, by the key's name, and goes on with the next."""
    went = post(ann, "/review/1", decision=decision, **fields)
    assert (went.status_code, went.headers["location"]) == (303, "/review/2")
    assert site.store.session("s1").correction == correction
    assert len(site.store.proposals()) == left
    if left == 2:
        assert re.search(r"Proposal 1 was \w+ by <bdi>ann</bdi>", ann.get("/review/1").text)


def test_after_the_last_comes_the_list(ann):
    """After the last of the queue the list is shown again, with what was skipped."""
    assert post(ann, "/review/3", decision="accept").headers["location"] == "/review"
    assert "2 corrections wait" in ann.get("/review").text


@pytest.mark.parametrize(
    ("decision", "text", "words"),
    [
        ("edit", " ", "The correction is empty"),
        ("edit", "x" * 16_001, "longer than 16000"),
        ("edit", "WRONG  s1", "the answer that was given"),
        ("accept", "<b>mine</b>", "You changed the correction"),
    ],
)
def test_what_does_not_fit_comes_back(ann, site, decision, text, words):
    """A correction that cannot be kept, and an accepted one that was changed, come back with what was written."""
    sent = post(ann, "/review/1", decision=decision, text=text)
    assert (sent.status_code, words in sent.text) == (400, True)
    assert html.escape(text, quote=False).strip() in sent.text
    assert '<details class="edit" open>' in sent.text
    assert len(site.store.proposals()) == 3


def test_the_difference_is_shown_before_it_is_saved(ann, site):
    """``Show the difference`` compares what was written with the answer, and decides nothing."""
    sent = post(ann, "/review/1", decision="show", text="wrong and right s1")
    assert (sent.status_code, "<ins>and right </ins>" in sent.text) == (200, True)
    assert len(site.store.proposals()) == 3


def test_arguments_are_compared_with_those_of_their_name(ann, site, make):
    """The difference of a call does not show the value of one argument as if it had been that of another."""
    site.store.keep(make("s4", prompt=[{"role": "user", "content": "code?"}], tools=READ,
                         answer=CALL.replace('"upper"', '"upper", "scale": 2')))  # fmt: skip
    site.store.rate("s4", Rating(stars=1, correction=CALL.replace('"upper"', "3")))
    shown = html.unescape(ann.get("/review/4").text).partition('id="difference">')[2].partition("</p>")[0]
    assert shown == 'calls read\n  region: <del>"upper"</del><ins>3</ins>\n<del>  scale: 2</del>'


def test_what_another_decided_stands(ann, site):
    """An item that was decided on meanwhile is said with who and what, and what was written is shown, not kept."""
    token = re.search(r'name="csrf" value="([^"]+)"', ann.get("/review/1").text)[1]
    site.store.propose([("s1", "sibling", "another")])
    site.store.decide(1, "edited", "theirs", key="bob")
    for path in ("/review/1", "/review/4"):
        late = send(ann, path, csrf=token, decision="edit", text="mine")
        assert late.status_code == 409
        assert all(words in late.text for words in ("edited by <bdi>bob</bdi>", "theirs", "mine", "was not kept"))
    assert site.store.session("s1").correction == "theirs"
    assert "Decided already" in ann.get("/review/1").text, "the back button leads here"
    assert ann.get("/review/99").status_code == 404


def test_an_edit_comes_back_where_its_proposal_is_gone(ann, site):
    """What was written is shown with the reason: another correction took its place, which is linked, or an erasure."""
    page = ann.get("/review/1").text
    token, session = (re.search(rf'name="{name}" value="([^"]+)"', page)[1] for name in ("csrf", "session"))
    form = {"csrf": token, "session": session, "decision": "edit", "text": "mine"}
    site.store.correct("s1", "newer")
    late = send(ann, "/review/1", **form)
    newer = next(each.id for each in site.store.proposals() if each.session == "s1")
    assert late.status_code == 410
    assert all(words in late.text for words in ("mine", "was not kept", "in its place", f'href="/review/{newer}"'))
    erasure.erase(site.store, ["s1"])
    late = send(ann, "/review/1", **form)
    assert late.status_code == 410
    assert all(words in late.text for words in ("mine", "session was erased"))
    assert send(ann, "/review/1", csrf=token, decision="reject").status_code == 404


def test_hostile_text_is_text_wherever_it_stands(ann, site, make):
    """Prompt, answer, tool name, its results, comment, reason and correction are shown as text, in page and list."""
    prompt = [
        {"role": "user", "content": HOSTILE},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": HOSTILE, "arguments": '{"a": "<b>"}'}}]},
        {"role": "tool", "tool_call_id": "c", "name": HOSTILE, "content": HOSTILE},
    ]  # fmt: skip
    call = CALL.replace('"read"', '"<img src=x onerror=alert(1)>"')
    site.store.keep(make("s4", prompt=prompt, answer=HOSTILE, tools=TOOLS, answered=HOSTILE, role=HOSTILE))
    site.store.rate("s4", Rating(stars=1, comment=HOSTILE, correction=HOSTILE + call))
    said = Assessment(id="", source="judge", by=HOSTILE, kind="feedback", name="score:0", value=2, rationale=HOSTILE)
    site.store.assess("s4", [said])
    for seen in (ann.get("/review"), ann.get("/review/4"), post(ann, "/review/4", decision="edit", text=HOSTILE)):
        assert seen.status_code in (200, 400)
        body = seen.text.partition("</style>")[2]
        assert body.count("<script") == ("data-key" in body)
        assert "<img" not in body
        assert "60481729" not in body
        assert "onfocus=alert(1) &amp;amp;" in body


def test_a_call_that_its_tool_does_not_take_is_not_accepted(ann, site, make):
    """A proposed call that breaks its schema is told on the page, and accepted neither as it is nor by its form."""
    site.store.keep(make("s4", prompt=[{"role": "user", "content": "code?"}], answer="7F", tools=READ))
    site.store.rate("s4", Rating(stars=1, correction=CALL.replace('"upper"', '"upper", "scale": "big"')))
    problem = "call 1 (read): scale: &#39;big&#39; is not of type &#39;integer&#39;"
    shown = ann.get("/review/4").text
    assert f'role="alert">{problem}' in shown
    assert '<details class="edit" open>' in shown
    form = {"call__0__before": "read", "call__0__tool": "read", "text": "", "call__0__arg__region": "upper",
            "call__0__arg__scale": "big"}  # fmt: skip
    for fields in ({}, form):
        sent = post(ann, "/review/4", decision="accept", **fields)
        assert (sent.status_code, problem in sent.text) == (400, True)
    assert site.store.session("s4").correction is None
    assert post(ann, "/review/4", decision="edit", **form | {"call__0__arg__scale": "2"}).status_code == 303
    assert '"scale": 2' in site.store.session("s4").correction


def test_calls_are_edited_in_fields(ann, site, make):
    """A call is a form of its tool's schema: what breaks it is told beside the field, and nothing is lost."""
    site.store.keep(make("s4", prompt=[{"role": "user", "content": "code?"}], answer="7F", tools=READ))
    site.store.rate("s4", Rating(stars=1, correction=CALL))
    assert (
        '<input type="text" id="call.0.arg.region" name="call.0.arg.region" value="upper"' in ann.get("/review/4").text
    )
    form = {"call__0__before": "read", "call__0__tool": "read", "text": "", "call__0__arg__region": "lower"}
    assert (
        '<input type="hidden" name="call.0.was" value="{&#34;region&#34;: &#34;upper&#34;}">'
        in ann.get("/review/4").text
    )
    bad = post(ann, "/review/4", decision="edit", **form, call__0__arg__scale="big")
    assert bad.status_code == 400
    problem = bad.text.partition('id="call.0.arg.scale.problem">')[2].partition("<")[0]
    assert problem == "Write a whole number."
    assert "optional whole number" in bad.text
    assert 'value="big"' in bad.text
    assert 'value="lower"' in bad.text
    assert post(ann, "/review/4", decision="accept", **form).status_code == 400, "it was changed"
    assert post(ann, "/review/4", decision="add", **form).text.count("Call 2") == 1
    assert post(ann, "/review/4", decision="edit", **form, call__0__arg__scale="2").status_code == 303
    assert site.store.session("s4").correction == (
        '<tool_call>{"name": "read", "arguments": {"region": "lower", "scale": 2}}</tool_call>'
    )


@pytest.mark.parametrize("mistyped", ["abc", "0", "-1", "1_0", "\u0661", "9" * 18, "9" * 5000])
def test_a_mistyped_number_is_answered_with_a_page(ann, mistyped):
    """An address that no proposal has is told to a person on a page, never as JSON."""
    token = re.search(r'name="csrf" value="([^"]+)"', ann.get("/review").text)[1]
    for seen in (ann.get(f"/review/{mistyped}"), send(ann, f"/review/{mistyped}", csrf=token, decision="accept")):
        assert (seen.status_code, "There is no such proposal" in seen.text) == (404, True)


def test_a_form_that_is_too_large(ann):
    """A form with more fields than the page has is refused."""
    many = {f"call.0.arg.{at}": "" for at in range(600)}
    assert post(ann, "/review/1", decision="edit", **many).status_code == 413
