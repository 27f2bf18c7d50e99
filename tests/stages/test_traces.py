"""Stage ``traces``, and the tick that takes over what people rated in MLflow."""

from __future__ import annotations

from loraloop.feedback.settings import Feedback
from loraloop.records import Session
from loraloop.tracing.queue import put
from loraloop.tracing.schema import prepare


def test_answers_go_to_mlflow_and_ratings_come_back(office):
    """The command sends what waits and takes over what was rated since; so does a tick, also one that cannot go on."""
    store = Feedback(folder=office.folder / "mlruns").open(on_kept=put(["mlflow"]))
    prepare(store.database)
    for name in ("one", "two"):
        now = "2099-01-01T00:00:00+00:00"
        store.keep(Session(id=f"traced-{name}", prompt="HHT", time=now, answer="2 heads", status="ok", answered="base"))
    assert office("stage=traces", "tracing.mlflow=true").line("mlflow").startswith("2 answers")
    experiment = office.client.get_experiment_by_name("loraloop-answers").experiment_id
    found = {each.info.tags["loraloop.session"]: each for each in office.client.search_traces(locations=[experiment])}
    for name, stars in (("one", 2), ("two", 4)):
        trace = found[f"traced-{name}"].info.trace_id
        rate(office, trace, stars)
        if name == "one":
            seen = office("stage=traces", "tracing.mlflow=true")
            assert seen.line("taken over") == "1 ratings"
        else:
            office.attempt("stage=tick", "tracing.mlflow=true", "tracker=none")
    rated = {each.id: (each.stars, each.rated_key) for each in store.all() if each.id.startswith("traced")}
    assert rated == {"traced-one": (2, "mlflow:ann"), "traced-two": (4, "mlflow:ann")}
    store.close()


def rate(desk, trace, stars):
    """Rate an answer in MLflow, as its pages do."""
    from mlflow.entities import AssessmentSource, Feedback
    from mlflow.tracing.client import TracingClient

    client = TracingClient(f"sqlite:///{desk.folder}/mlruns/mlflow.db")
    client.log_assessment(trace, Feedback(name="quality", value=stars, source=AssessmentSource("HUMAN", "ann")))


def test_an_export_to_nowhere(desk):
    """Without a place the command says how to name one, and an OTLP receiver's address has to be one."""
    seen = desk.attempt("stage=traces")
    assert seen.code == 2
    assert "tracing.mlflow=true" in seen.err
    wrong = desk.attempt("stage=traces", "tracing.otlp=collector:4318")
    assert wrong.code == 2
    assert "http://127.0.0.1:4318" in wrong.err
