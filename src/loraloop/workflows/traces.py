"""Traces between the store of sessions and MLflow: what waits is sent, and what people rated there is taken over."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from loraloop.core.passwords import mask
from loraloop.errors import DataError, LoraloopError, StoreError, TrackingError
from loraloop.feedback.ratings import LONGEST_COMMENT, LONGEST_CORRECTION, clean
from loraloop.records import Rating
from loraloop.tracing.queue import THEIRS

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.tracing.mlflow import Assessed
    from loraloop.tracing.settings import Tracing

LONGEST_KEY = 200
_log = logging.getLogger(__name__)


def send_waiting(tracing: Tracing, store: Store) -> dict[str, int]:
    """Send everything that waits; by place, how many answers, ratings and corrections that were.

    Raises:
        TrackingError: A place does not take them; they wait on.
    """
    from loraloop.tracing.exporter import exporters

    sent: Counter[str] = Counter(dict.fromkeys(tracing.names, 0))
    for exporter, queue in exporters(tracing, store.database):
        try:
            while count := exporter.step():
                sent[queue.destination] += count
        except LoraloopError:
            raise
        except Exception as error:
            raise _unusable(tracing, error) from error
    return dict(sent)


def take_ratings(tracing: Tracing, store: Store, *, strict: bool = False) -> Counter[str]:
    """Take over what people said in MLflow about served answers, each assessment once; what they became, counted.

    A rating is the session's rating, if it has none yet. An expectation is a correction, which waits for review.

    Args:
        tracing: Where nothing is sent to MLflow, nothing is looked at.
        store: Of the sessions.
        strict: Whether an MLflow that cannot be reached is an error; else the log says so.

    Raises:
        TrackingError: It cannot be reached.
        StoreError: Something could not be kept.
    """
    from loraloop.tracing.queue import Queue

    became: Counter[str] = Counter()
    if not tracing.mlflow:
        return became
    queue = Queue(store.database, "mlflow")
    try:
        for page in tracing.mlflow_traces().assessed(tracing.rated_days):
            known = queue.taken([each.id for each in page])
            for said in page:
                if said.id not in known and _is_kept(store, said.session):
                    became[found := _taken_for(store, said)] += 1
                    queue.take_back(said.id, said.session, found)
    except StoreError:
        raise
    except Exception as error:
        if strict:
            raise _unusable(tracing, error) from error
        _log.warning("ratings in MLflow are not taken over now: %s", mask(str(error).partition("\n")[0]))
    return became


def _is_kept(store: Store, session: str) -> bool:
    """Whether the session is there: it may have been deleted, or served by others who use the same experiment."""
    try:
        store.session(session)
    except DataError:
        return False
    return True


def _taken_for(store: Store, said: Assessed) -> str:
    """Keep what a person said; what it became."""
    try:
        if said.correction is not None and (text := clean(said.correction)[:LONGEST_CORRECTION]):
            if not store.reviewed:
                store.correct(said.session, text)
                return "corrections"
            store.propose([(said.session, "user", text)])
            return "corrections, which wait for review"
        if said.stars is None:
            _log.warning(
                "traces: %s of session %s is not taken over: a rating is a whole number of 1 to 5, or yes or no, and a "
                "correction is an expectation with a text",
                said.name,
                said.session,
            )
            return "left: neither stars nor a text"
        rating = Rating(stars=said.stars, comment=clean(said.comment)[:LONGEST_COMMENT])
        store.rate(said.session, rating, f"{THEIRS}{said.who}"[:LONGEST_KEY])
    except DataError:  # rated or reviewed already: the first stands
        return "left: rated or corrected before"
    return "ratings"


def _unusable(tracing: Tracing, error: Exception) -> TrackingError:
    first = mask(str(error).partition("\n")[0])
    return TrackingError(f"traces cannot be exchanged with {tracing.told} now, and wait: {first}")
