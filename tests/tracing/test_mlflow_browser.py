"""MLflow away and there again, and its page of a trace in a real browser."""

from __future__ import annotations

import pytest

import warm
from loraloop.errors import ConfigError
from loraloop.feedback.settings import Feedback
from loraloop.records import Rating
from loraloop.tracing.exporter import exporting
from loraloop.tracing.mlflow import MlflowTraces
from loraloop.tracing.queue import Queue, put
from loraloop.tracing.settings import Tracing
from loraloop.workflows.traces import take_ratings
from scripts import script
from waiting import until


@pytest.fixture(scope="module")
def pictures():
    """The script that takes the picture of the same page."""
    with script("trace_picture") as picture, script("screenshot") as screenshot, warm.forking(screenshot):
        yield picture, screenshot


def test_an_outage_loses_nothing_and_a_rating_in_the_page_comes_back(pictures, make, tmp_path, monkeypatch):
    """While MLflow's server is down answers wait, over a restart too; then they arrive with the rating given meanwhile.

    A browser shows the trace as a chat, and a person's "False" with its words, given in the page, is the session's one
    star with that comment.
    """
    picture, screenshot = pictures
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = screenshot.free_port()
    place = MlflowTraces(None, tmp_path / "mlruns", "loraloop-answers")
    experiment, _ = place.where("")
    tracing = Tracing(mlflow=True, uri=f"http://127.0.0.1:{port}", seconds=0.1)
    store = Feedback(folder=tmp_path / "sessions").open(on_kept=put(tracing.names))
    queue = Queue(store.database, "mlflow")
    shown = picture.session()
    with exporting(tracing, store.database):
        store.keep(shown)
        store.keep(make("rated"))
        store.rate("rated", Rating(stars=4))
        until(lambda: tries(store) > 0, "the outage is seen")
    assert queue.waiting() == 2
    known = MlflowTraces(tracing.uri, tmp_path, "loraloop-answers")
    known.__dict__["_id"] = experiment  # it was reached before
    with pytest.raises(NotImplementedError):
        known.send([shown])
    with screenshot.ui(tmp_path, port) as site, screenshot.browser(*picture.WINDOW) as page:
        known.send([make("at once")])
        with exporting(tracing, store.database):
            until(lambda: queue.waiting() == 0 and not queue.ratings(9), "everything was sent")
        (rating,) = known._client.get_trace_info(known.where("rated")[1]).assessments
        assert (rating.name, rating.value) == ("rating", 4)
        picture.open_trace(page, picture.address(site, place, shown.id), "3 degrees, rain")
        text = page.js("document.body.innerText")
        for said in ("decomposition@3", "119 tokens", "Bern has 3 degrees; now Basel.", "Tool calls", "weather"):
            assert said in text
        picture.keep_picture(page, tmp_path / "trace.png")
        assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")
        picture.rate_badly(page, "no degrees at all")
        assert take_ratings(tracing, store) == {"ratings": 1}
    found = store.session(shown.id)
    assert (found.stars, found.rating.comment, found.rated_key) == (1, "no degrees at all", "mlflow:User")
    assert take_ratings(tracing, store) == {}  # MLflow is away again: the log says so
    store.close()


def tries(store):
    """How often the answers that wait could not be sent."""
    with store.database.read() as connection:
        return connection.exec_driver_sql("SELECT max(tries) FROM trace_exports").scalar()


def test_settings_of_a_place():
    """Without a place the way out is named."""
    with pytest.raises(ConfigError, match=r"tracing\.mlflow=true"):
        Tracing().require_place()
