"""Signed links and the key behind them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings, strategies

from loraloop.errors import StoreError
from loraloop.feedback.links import ExpiredLinkError, ForgedLinkError, Links

SESSIONS = strategies.text(min_size=1, max_size=40, alphabet=strategies.characters(codec="utf8"))


@pytest.fixture(scope="module")
def links(tmp_path_factory):
    """Links that are good for a minute."""
    return Links(tmp_path_factory.mktemp("key") / "rating.key", 60)


def parts(link: str) -> tuple[str, str]:
    """Session and proof of a link."""
    split = urlsplit(link)
    return unquote(split.path).removeprefix("/rate/"), parse_qs(split.query)["token"][0]


@settings(deadline=None)
@given(session=SESSIONS)
def test_a_link_opens_its_session(links, session):
    """A link passes for the session that it was made for."""
    assert parts(links.make(session))[0] == session
    links.verify(*parts(links.make(session)))


@settings(deadline=None)
@given(session=SESSIONS, other=SESSIONS)
def test_a_link_opens_nothing_else(links, session, other):
    """The proof of one session is none for another."""
    if session != other:
        with pytest.raises(ForgedLinkError):
            links.verify(other, parts(links.make(session))[1])


@settings(deadline=None)
@given(data=strategies.data())
def test_a_changed_link_is_forged(links, data):
    """A proof with one character changed, cut off or made up does not pass."""
    session, proof = parts(links.make("s1"))
    place = data.draw(strategies.integers(0, len(proof) - 2))
    letter = data.draw(strategies.characters(codec="ascii").filter(lambda each: each != proof[place]))
    made_up = data.draw(strategies.text(alphabet=strategies.characters(codec="utf8")))
    for wrong in (proof[:place] + letter + proof[place + 1 :], proof[:place], made_up):
        with pytest.raises(ForgedLinkError):
            links.verify(session, wrong)


def test_an_old_link_has_expired(tmp_path, monkeypatch):
    """After its time a link does not pass any more."""
    links = Links(tmp_path / "rating.key", 3600)
    session, proof = parts(links.make("s1"))
    now = links._signer.get_timestamp()
    monkeypatch.setattr(links._signer, "get_timestamp", lambda: now + 3600)
    links.verify(session, proof)
    monkeypatch.setattr(links._signer, "get_timestamp", lambda: now + 3602)
    with pytest.raises(ExpiredLinkError):
        links.verify(session, proof)


def test_a_form_belongs_to_one_browser(links):
    """The token of a form agrees with its session and its browser's cookie alone, and a missing cookie never."""
    token = links.token("s1", "n1")
    assert links.agrees("s1", "n1", token)
    assert not links.agrees("s2", "n1", token)
    assert not links.agrees("s1", "n2", token)
    assert not links.agrees("s1", "", links.token("s1", ""))
    assert not links.agrees("s1", "n1", "ü")


def test_the_key_is_made_once_and_private(tmp_path):
    """Of many that make the key at once all have the same one; its owner alone can read it, nothing is left over."""
    file = tmp_path / "mlruns" / "rating.key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Links(file, 60).token("s1", "n"), range(16)))
    assert len(set(made)) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_a_damaged_key(tmp_path):
    """A key file of another length is not used."""
    (tmp_path / "rating.key").write_bytes(b"short")
    with pytest.raises(StoreError, match="damaged"):
        Links(tmp_path / "rating.key", 60)
