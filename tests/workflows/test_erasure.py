"""Where sessions are, besides the database, and what is named of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from loraloop.dataset import exports
from loraloop.feedback.settings import Feedback
from loraloop.ocr.cache import Cache
from loraloop.records import Example, Page, Provenance, Session
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.tracker.mlflow import Mlflow
from loraloop.workflows import erasure


def rows(*sessions):
    """An example for each session."""
    return [
        Example.one_turn(input="a", output="b", provenance=Provenance(source="sessions", session_id=each))
        for each in sessions
    ]


def session(name, **changes):
    """A session."""
    return Session(id=name, prompt=f"read\nCODE {name}", answer="7", answered="base", **changes)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_exports_are_named(tmp_path, name):
    """Of the files in a folder, those with rows of the sessions are named, each with the number of sessions."""
    (tmp_path / "deep").mkdir()
    file = exports.save(rows("s1", "s1", "s2", "s3"), tmp_path / "deep" / name)
    exports.save(rows("s3"), tmp_path / "other.jsonl")
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "s2").mkdir()
    (tmp_path / "s2" / "session.json").write_text("{}")
    assert erasure.exports([tmp_path], {"s1", "s2"}) == {file: 2, tmp_path / "s2" / "session.json": 1}


def test_versions_are_named(tmp_path):
    """Named are versions whose runs logged rows of the sessions, those that went on with them, and unknown ones."""
    tracker, registry = Mlflow(folder=str(tmp_path), system_metrics=False), MlflowRegistry(folder=tmp_path)
    assert erasure.trained(registry, tracker, {"s1"}) == erasure.Trained((), ())
    with registry._client() as client:
        client.create_registered_model("ocr")
        for held in ("s1", "s2"):
            with tracker.start(held) as run:
                run.artifact(exports.save(rows(held), tmp_path / f"{held}.jsonl"), "dataset")
            client.create_model_version("ocr", source=str(tmp_path), run_id=run.id)
        client.create_model_version("ocr", source=str(tmp_path))
        for began in ("models:/ocr/1", "models:/ocr/4", "models:/ocr/2", "weights 0"):
            with tracker.start(f"from {began}") as run:
                run.artifact(exports.save(rows("s9"), tmp_path / "s9.jsonl"), "dataset")
                run.params({"continued_from": began})
            client.create_model_version("ocr", source=str(tmp_path), run_id=run.id)
    found = erasure.trained(registry, tracker, {"s1"})
    assert (found.versions, [name for name, _ in found.unknown]) == (("ocr@1", "ocr@4", "ocr@5"), ["ocr@3", "ocr@7"])


@pytest.fixture
def kept(tmp_path):
    """A store with a session of long ago and one of a far day to come, and the read pages of both."""
    part = Feedback(folder=tmp_path, keep_days=30)
    store = part.open()
    ocr = SimpleNamespace(cache=tmp_path / "cache")
    for name, year in (("s1", 2020), ("s2", 2990)):
        store.keep(session(name, time=f"{year}-03-02T11:00:00.000+00:00", status="ok"))
        page = Page(image="", sha256="", width=1, height=1, text=f"CODE {name}", confidence=1, words=(), engine="",
                    steps=(), seconds=1)  # fmt: skip
        Cache(ocr.cache).put(f"{name}key", page)
    yield part, store, ocr
    store.close()


def test_what_is_too_old_goes(kept, tmp_path, capsys):
    """Sessions older than ``feedback.keep_days`` and their read pages are erased once, and exports are named."""
    part, store, ocr = kept
    exports.save(rows("s1"), tmp_path / "rows.jsonl")
    for _ in range(2):
        erasure.expire(part, store, ocr)
    said = capsys.readouterr().out
    assert said.count("erased 1 sessions, 0 ratings, 0 corrections, 0 signals, 1 cached pages") == 1
    assert said.count(str(tmp_path / "rows.jsonl")) == 1
    assert [each.id for each in store.all()] == ["s2"]
    assert [each.stem for each in ocr.cache.rglob("*.json")] == ["s2key"]


def test_by_default_nothing_goes(kept):
    """Without ``feedback.keep_days`` sessions of any age stay."""
    _, store, ocr = kept
    erasure.expire(Feedback(), store, ocr)
    assert len(store.all()) == 2
