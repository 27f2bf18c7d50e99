"""Stage ``keys``, as a person runs it."""

from __future__ import annotations

import pytest

QUIET = ("tracker=none", "server.port=0")


def test_keys(desk):
    """A key is shown once, listed without its text, opens the server, and is taken back."""
    made = desk("stage=keys", "name=ci", "scopes=[infer]")
    secret = made.line("key")
    listed = desk("stage=keys")
    assert listed.cells("ci")[0] == "infer"
    assert secret not in listed.out
    refused = desk.attempt("stage=serve", *QUIET, "server.host=0.0.0.0", "server.keys=none.json")
    assert refused.code == 2
    assert "stage=keys" in refused.err
    assert "opens nothing" in desk("stage=keys", "revoke=ci").out
    assert desk.attempt("stage=keys", "revoke=ci").code == 2


@pytest.mark.parametrize(
    ("override", "words"), [("scopes=[root]", "infer, feedback, review, registry, admin"), ("scopes=[]", "infer")]
)
def test_scopes_that_do_not_exist(desk, override, words):
    """A key needs scopes that exist; the error lists them."""
    seen = desk.attempt("stage=keys", "name=ci", override)
    assert seen.code == 2
    assert words in seen.err
