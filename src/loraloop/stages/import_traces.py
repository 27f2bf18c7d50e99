"""Stage ``import``: conversations that other programs logged into the store of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError
from loraloop.workflows import importing
from loraloop.workflows.rows import QUARANTINED

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.protocols import Source
    from loraloop.records import Job

SAID = {"human": "people", "judge": "judges", "code": "code", "unknown": "somebody unnamed"}


def import_traces(job: Job, role: str | None, source: Source, feedback: Feedback) -> None:
    """Keep the conversations of a log as sessions; those that are there already stay as they are.

    Raises:
        ConfigError: The source is none of logs.
        DataError: The log holds no conversation.
    """
    from loraloop.source.traces import Traces

    if not isinstance(source, Traces):
        raise ConfigError("stage=import reads logs: leave source=traces, and name the log with source.path=FILE")
    store = feedback.open()
    try:
        found = importing.bring(source, store, role)
    finally:
        store.close()
    console.quarantine(found.aside, every=job.output / QUARANTINED)
    counts = found.counts
    said = ", ".join(f"{counts[name]} of {who}" for name, who in SAID.items() if counts[name])
    facts = {
        "kept": f"{counts['new']} new, {counts['known']} were there, in {store.database.name}",
        "rated": f"{counts['rated']} by people, {counts['correction']} with a correction",
    }
    console.facts("imported", facts | ({"assessments": said} if said else {}))
