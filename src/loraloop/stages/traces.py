"""Stage ``traces``: served answers out to where they are looked at, and ratings back."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.workflows.traces import send_waiting, take_ratings

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.records import Job
    from loraloop.tracing.settings import Tracing


def traces(job: Job, feedback: Feedback, tracing: Tracing) -> None:
    """Send what waits, without a server, and take over what people rated in MLflow.

    Raises:
        ConfigError: ``tracing`` names no place, or nothing was served yet.
        TrackingError: A place cannot be reached.
    """
    tracing.require_place()
    with closing(feedback.existing()) as store:
        sent = send_waiting(tracing, store)
        taken = take_ratings(tracing, store, strict=True)
    facts = {name: f"{count} answers and ratings sent" for name, count in sent.items()}
    if tracing.mlflow:
        facts["taken over"] = ", ".join(f"{count} {became}" for became, count in sorted(taken.items())) or "nothing new"
    console.facts(f"traces to {tracing.told}", facts)
