"""What the stage ``serve`` puts together."""

from __future__ import annotations

import dataclasses
import json

from loraloop.errors import UnknownVersionError
from loraloop.serve.names import Versions
from loraloop.serve.server import Server
from loraloop.workflows.serving import announce, tick_command


def test_the_tick_gets_what_the_server_got():
    """The scheduled command has the server's settings, but for what only the server has."""
    kept = ["hydra.searchpath=['file:///own']", "server.port=0", "folder=runs/a b", "+x=1", "policy=seed"]
    command = tick_command(["stage=serve", "schedule.every=4h", "++schedule.every=4h", "hydra.verbose=true", *kept])
    assert command[1:] == ["-m", "loraloop", "stage=tick", *kept]


def test_the_roles_that_are_told(tmp_path, capsys):
    """At its start the server tells of the roles that have a version and of those that the user named, no others."""

    def number(reference: str) -> int:
        if reference != "models:/loraloop-ocr@champion":
            raise UnknownVersionError(reference)
        return 7

    versions = Versions(lambda reference: 1 / 0, {"ocr": "loraloop-ocr"}, number=number)
    roles = {"validator": "ocr@champion", "actor": "action@champion", "coordinator": "plan@champion"}
    server = Server(roles=roles, keys=tmp_path / "keys.json")
    announce(server, "http://x", versions, None)
    announce(server, "http://x", versions, None, ["server.roles.actor=action@champion"])
    announce(dataclasses.replace(server, roles={"actor": "action@champion"}), "http://x", versions, None)
    said = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if "agents" in line]
    unknown = "actor: action@champion, which no version is yet (loraloop stage=promote role=actor version=N)"
    assert said == ["validator: ocr@7", f"validator: ocr@7; {unknown}"]


def test_a_keys_file_without_a_key_is_told(tmp_path, capsys):
    """The start does not say that this machine is answered where nobody is."""
    file = tmp_path / "keys.json"
    versions = Versions(lambda reference: 1 / 0)
    announce(Server(keys=file), "http://x", versions, None)
    file.write_text("[]")
    announce(Server(keys=file), "http://x", versions, None)
    announce(Server(keys=file, open=True), "http://x", versions, None)
    said = [line.split()[2:5] for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["keys"]]
    assert said == [["this", "machine", "alone"], ["nobody", "is", "answered;"], ["this", "machine", "alone"]]


def test_the_review_page_is_told_where_somebody_can_open_it(tmp_path, capsys):
    """The start names /review where no key is asked for or a key has its scope, and not where keys open no review."""
    file = tmp_path / "keys.json"
    for scopes in (None, ["infer"], ["review"]):
        if scopes:
            file.write_text(
                json.dumps([{"name": "ann", "sha256": "0" * 64, "scopes": scopes, "created": "2026-11-29"}])
            )
        announce(Server(keys=file), "http://x", Versions(lambda reference: 1 / 0), None)
    said = ["http://x/review" in line for line in capsys.readouterr().out.splitlines() if "pages" in line]
    assert said == [True, False, True]
