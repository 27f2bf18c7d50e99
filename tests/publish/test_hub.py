"""Publishing to a Hub: a server that speaks the part of the Hub's HTTP interface that an upload uses."""

import base64
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from loraloop.errors import ConfigError, RegistryError
from loraloop.publish.hub import Hub

TOKEN = "hf_test"  # noqa: S105 (of the server below)


class Handler(BaseHTTPRequestHandler):
    """One repository in memory; every commit is applied at once, and refused when its parent is not the newest."""

    def do_GET(self):
        """Who am I, what does the repository hold, and its files."""
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            return self.answer({"name": "user"}, 200 if self.headers["Authorization"] == f"Bearer {TOKEN}" else 401)
        if path.startswith("/api/models/user/name"):
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.answer({"id": "user/name", "sha": self.server.sha, "siblings": siblings})
        return self.file(path.rpartition("/")[2])

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        """Create the repository, announce an upload, commit."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            return self.answer({"url": f"http://{self.headers['Host']}/user/name"})
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        return self.commit([json.loads(line) for line in body.splitlines()])

    def commit(self, lines):
        """Apply a header line and one line per file."""
        if self.server.race:
            self.server.sha = "f" * 40
        if lines[0]["value"]["parentCommit"] != self.server.sha:
            return self.answer({"error": "A commit has happened since."}, 412)
        for line in lines[1:]:
            self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.server.sha = f"{len(self.server.files):040d}"
        return self.answer(
            {"commitUrl": f"http://{self.headers['Host']}/user/name/commit/1", "commitOid": self.server.sha}
        )

    def file(self, name):
        """Send a file."""
        content = self.server.files[name]
        self.send_response(200)
        for key, value in {
            "ETag": f'"{name}"',
            "X-Repo-Commit": self.server.sha,
            "Content-Length": len(content),
        }.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def answer(self, value, status=200):
        """Send JSON."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Keep the test's output quiet."""


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.sha, server.race = {".gitattributes": b""}, "0" * 40, False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def publisher(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return Hub(repo_id="user/name", endpoint=f"http://127.0.0.1:{server.server_port}")


def test_a_version_is_one_commit(publisher, server, version, metrics):
    """After the pre-flight, a private repository is made and all files arrive in one commit."""
    publisher.check()
    assert publisher.publish(version, metrics) == f"{publisher.endpoint}/user/name"
    assert server.created["name"] == "name"
    assert "private" in (server.created.get("visibility"), *[key for key, on in server.created.items() if on is True])
    assert set(server.files) == {".gitattributes", "README.md", *(path.name for path in version.path.iterdir())}
    for path in version.path.iterdir():
        assert server.files[path.name] == path.read_bytes()
    assert b"PeftModel.from_pretrained(base, 'user/name')" in server.files["README.md"]


def test_publishing_again_commits_nothing(publisher, server, version, metrics):
    """A repository that holds this version already is left as it is, an edited card included."""
    publisher.publish(version, metrics)
    server.files["README.md"] = b"my words"
    sha = server.sha
    publisher.publish(version, metrics)
    assert server.sha == sha
    assert server.files["README.md"] == b"my words"


def test_another_adapter_is_never_overwritten(publisher, server, version, other, metrics):
    """A repository with another adapter, with or without a manifest, is refused and named."""
    publisher.publish(other, metrics)
    before = dict(server.files)
    with pytest.raises(RegistryError, match=r"user/name holds another adapter .*choose another publish.repo_id"):
        publisher.publish(version, metrics)
    del server.files["manifest.json"]
    with pytest.raises(RegistryError, match="holds another adapter"):
        publisher.publish(other, metrics)
    assert {**server.files, "manifest.json": before["manifest.json"]} == before


def test_a_commit_in_between_is_not_overwritten(publisher, server, version, metrics):
    """When somebody else commits after the look at the repository, the upload is refused and nothing arrives."""
    server.race = True
    with pytest.raises(RegistryError, match="nothing was published"):
        publisher.publish(version, metrics)
    assert set(server.files) == {".gitattributes"}


def test_no_token_is_told(publisher, monkeypatch, tmp_path):
    """Without a token the pre-flight says how to give one."""
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="set HF_TOKEN, or run `hf auth login`"):
        publisher.check()


def test_a_refused_token_is_told(publisher, monkeypatch):
    """A token that the Hub does not know is an error that says so."""
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(ConfigError, match=r"does not accept the token \(HTTP 401\)"):
        publisher.check()


def test_no_network_is_told(monkeypatch):
    """A Hub that cannot be reached is an error that names it and the way out."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=rf"{dead} cannot be reached .*publish=folder offline"):
        Hub(repo_id="user/name", endpoint=dead).check()


def test_a_repository_must_be_named():
    """Without a repository the pre-flight names the key, and a malformed name is refused on construction."""
    with pytest.raises(ConfigError, match=r"set publish\.repo_id=USER/NAME"):
        Hub().check()
    with pytest.raises(ValidationError):
        Hub(repo_id="no-slash")
