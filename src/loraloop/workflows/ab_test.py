"""Versions side by side: on the same prompts, and in the sessions that they served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loraloop.core import console
from loraloop.core.progress import Progress
from loraloop.errors import DataError

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.feedback.paired_benchmark import TimedAnswer
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.statistics import Interval
    from loraloop.records import Dataset, Example, Job, LoadedModel, Row
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.names import Versions

SLACK = 8
"""Tokens that an answer may be longer than the longest expected one."""
BOUND_MS = 500
"""Most that an adapter may add to an answer (promise L6)."""


def sample(rows: Sequence[Row], count: int, rng: np.random.Generator) -> list[Row]:
    """At most ``count`` of the rows, drawn at random, in their order."""
    return [rows[at] for at in sorted(rng.permutation(len(rows))[:count])]


def answer(
    serve: LocalBackend, loaded: LoadedModel, versions: Versions, chosen: Sequence[str], rows: Sequence[Row]
) -> dict[str, list[TimedAnswer]]:
    """Every version's answers to the prompts of ``rows``, given one at a time by the backend that serves them."""
    from loraloop.feedback.paired_benchmark import time_answers

    backend = serve.attach(loaded, versions.version)
    backend.check()
    backend.start()
    try:
        longest = max(backend.tokens(row.completion) for row in rows) + SLACK
        with Progress("asking", "prompt", len(chosen) * len(rows)) as progress:
            return asyncio.run(time_answers(backend, chosen, [row.prompt for row in rows], longest, progress.advance))
    finally:
        backend.close()


def warn_of_other_training(chosen: Sequence[str], versions: Versions, built: Dataset, dataset: DatasetBuilder) -> None:
    """Print which adapters were trained on other data, or with another template, than the prompts here have."""
    from loraloop.serve.names import BASE

    for name in chosen:
        if name == BASE:
            continue
        manifest = versions.version(name).manifest
        if manifest.dataset_fingerprint is None:
            print(f"{name} was trained elsewhere: whether these prompts were in its training part is not known")
        elif manifest.dataset_fingerprint != built.fingerprint:
            print(f"{name} was trained on another dataset: some of these prompts may have been in its training part")
        if manifest.template != dataset.template:
            print(f"{name} was trained with dataset.template={manifest.template!r}, and is asked in another one here")


def print_answers(
    chosen: Sequence[str],
    rows: Sequence[Row],
    answers: dict[str, list[TimedAnswer]],
    correct: Callable[[Example, str], bool],
    rng: np.random.Generator,
) -> None:
    """Print how each version did on the prompts, and how it differs from the first, prompt by prompt."""
    from loraloop.feedback import statistics

    right = {name: [correct(r.example, a.text) for r, a in zip(rows, answers[name], strict=True)] for name in chosen}
    own, against = [], []
    for name in chosen:
        seconds = [answer.seconds for answer in answers[name]]
        tokens = [answer.tokens for answer in answers[name]]
        cells = [_figure(statistics.share(sum(right[name]), len(rows)), 1, ".2f")]
        cells += [_figure(statistics.quantile(seconds, at, rng), 1e3, ".0f") for at in (0.5, 0.95)]
        own.append([name, *cells, f"{np.mean(tokens):.1f}", f"{1e3 * _per_token(answers[name]):.2f}"])
    first = chosen[0]
    for name in chosen[1:]:
        gains = [float(b) - float(a) for a, b in zip(right[first], right[name], strict=True)]
        extra = [b.seconds - a.seconds for a, b in zip(answers[first], answers[name], strict=True)]
        half, most = (statistics.quantile(extra, at, rng) for at in (0.5, 0.95))
        change = _figure(statistics.mean(gains, rng), 1, "+.2f")
        verdict = "yes" if 1e3 * most.value < BOUND_MS else "no"
        token = f"{1e3 * (_per_token(answers[name]) - _per_token(answers[first])):+.2f}"
        against.append([name, change, _figure(half, 1e3, "+.0f"), _figure(most, 1e3, "+.0f"), verdict, token])
    title = f"{len(rows)} held-out prompts, answered one at a time (95% intervals in brackets)"
    console.table(title, ["answered by", "success", "p50 ms", "p95 ms", "tokens", "ms/token"], own)
    columns = [f"against {first}", "success", "overhead p50 ms", "overhead p95 ms", f"p95 < {BOUND_MS} ms", "ms/token"]
    console.table("the same prompts, pair by pair", columns, against)


def _per_token(answers: Sequence[TimedAnswer]) -> float:
    """Seconds for a token: what an adapter costs where its answers are longer or shorter than the other's."""
    return sum(answer.seconds for answer in answers) / max(1, sum(answer.tokens for answer in answers))


def print_sessions(job: Job, chosen: Sequence[str], feedback: Feedback, *, required: bool) -> None:
    """Print how each version did in the sessions that it served; without ``required``, nothing where there are none.

    Raises:
        ConfigError: Sessions are required and there is no store.
        DataError: Sessions are required and there is none.
    """
    from loraloop.feedback import statistics

    if not required and not feedback.exists():
        return
    store = feedback.existing()
    rng = np.random.default_rng(job.seed)
    found = [statistics.summarise(name, store.all(answered=name), rng) for name in chosen]
    if not any(each.sessions for each in found):
        if required:
            raise DataError(f"{store.database.name} has no session that {', '.join(chosen)} answered")
        return
    rows = [
        [
            each.version,
            str(each.sessions),
            _figure(each.rating, 1, ".2f"),
            str(each.rated),
            _figure(each.implied, 1, ".2f"),
            _figure(each.success, 1, ".3f"),
            _figure(each.p50, 1e3, ".0f"),
            _figure(each.p95, 1e3, ".0f"),
        ]
        for each in found
    ]
    columns = ["answered by", "sessions", "rating", "rated", "implied", "success", "p50 ms", "p95 ms"]
    console.table("live sessions, each with other prompts (95% intervals in brackets)", columns, rows)
    words = [each for each in store.issues if any(one.issues.get(each) for one in found)]
    words += sorted({word for each in found for word in each.issues} - set(words))  # of a form of earlier times
    counts = [[store.issues.get(word, word), *(str(each.issues.get(word, 0)) for each in found)] for word in words]
    if counts:
        console.table("what people said went wrong, in sessions", ["issue", *chosen], counts)


def _figure(figure: Interval, scale: float, form: str) -> str:
    if np.isnan(figure.value):
        return "-"
    value, low, high = (format(scale * each, form) for each in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"
