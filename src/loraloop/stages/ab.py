"""Stage ``ab``: adapters and their base on the same prompts, and in the sessions that they served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loraloop.core import console
from loraloop.core.progress import Progress
from loraloop.errors import ConfigError, DataError
from loraloop.workflows import rows as data

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.feedback.paired_benchmark import Answered
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.statistics import Figure
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Dataset, Example, Job, LoadedModel, Row
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.names import Versions

SLACK = 8
"""Tokens that an answer may be longer than the longest expected one."""
BOUND_MS = 500
"""Most that an adapter may add to an answer (promise L6)."""


def ab(
    job: Job,
    adapters: Sequence[str],
    names: dict[str, str],
    prompts: int,
    live: bool,
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    serve: LocalBackend,
    registry: MlflowRegistry,
    feedback: Feedback,
) -> None:
    """Compare adapters with the first of them: on held-out prompts as a server answers them, and in live sessions.

    Raises:
        ConfigError: Fewer than two adapters, or live sessions were asked for and there is no store.
        UnknownVersionError: There is no such version.
        DataError: None of them has a live session.
    """
    from loraloop.serve.names import Versions

    versions = Versions(registry.resolve, names)
    chosen = _chosen(adapters, versions)
    if not live:
        _on_prompts(job, chosen, versions, prompts, source, ocr, dataset, model, serve)
    _live(job, chosen, feedback, asked=live)


def _chosen(adapters: object, versions: Versions) -> list[str]:
    from loraloop.serve.names import BASE

    wanted = [str(each) for each in adapters] if isinstance(adapters, list) else []
    found = list(dict.fromkeys(name if name == BASE else versions.find(name)[0] for name in wanted))
    if len(found) < 2:
        raise ConfigError(f"adapters={adapters}: name two or more different ones, such as adapters=[base,ocr@7]")
    return found


def _on_prompts(
    job: Job,
    chosen: Sequence[str],
    versions: Versions,
    prompts: int,
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    serve: LocalBackend,
) -> None:
    from loraloop.serve.names import BASE

    loaded = model.load()
    built = data.prepare(source, ocr, dataset, loaded.tokenizer)
    held_out = built.validation
    rng = np.random.default_rng(job.seed)
    rows = [held_out[i] for i in sorted(rng.permutation(len(held_out))[:prompts])]
    answers = _answers(serve, loaded, versions, chosen, rows)
    for name in chosen:
        if name != BASE:
            _remark(name, versions, built, dataset)
    _show(chosen, rows, answers, source.correct, rng)


def _answers(
    serve: LocalBackend, loaded: LoadedModel, versions: Versions, chosen: Sequence[str], rows: Sequence[Row]
) -> dict[str, list[Answered]]:
    from loraloop.dataset.template import format_renderer
    from loraloop.feedback.paired_benchmark import ask_all

    backend = serve.attach(loaded, format_renderer, versions.version)
    backend.check()
    backend.start()
    try:
        longest = max(backend.tokens(row.completion) for row in rows) + SLACK
        with Progress("asking", "question", len(chosen) * len(rows)) as progress:
            return asyncio.run(ask_all(backend, chosen, [row.prompt for row in rows], longest, progress.advance))
    finally:
        backend.close()


def _remark(name: str, versions: Versions, built: Dataset, dataset: DatasetBuilder) -> None:
    manifest = versions.version(name).manifest
    if manifest.dataset_fingerprint != built.fingerprint:
        print(f"{name} was trained on another dataset: some of these prompts may have been in its training part")
    if manifest.template != dataset.template:
        print(f"{name} was trained with dataset.template={manifest.template!r}, and is asked in another one here")


def _show(
    chosen: Sequence[str],
    rows: Sequence[Row],
    answers: dict[str, list[Answered]],
    correct: Callable[[Example, str], bool],
    rng: np.random.Generator,
) -> None:
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


def _per_token(answers: Sequence[Answered]) -> float:
    """Seconds for a token: what an adapter costs where its answers are longer or shorter than the other's."""
    return sum(answer.seconds for answer in answers) / max(1, sum(answer.tokens for answer in answers))


def _live(job: Job, chosen: Sequence[str], feedback: Feedback, *, asked: bool) -> None:
    from loraloop.feedback import statistics

    if not asked and not feedback.exists():
        return
    store = feedback.existing()
    rng = np.random.default_rng(job.seed)
    found = [statistics.live(name, store.all(answered=name), rng) for name in chosen]
    if not any(each.sessions for each in found):
        if asked:
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


def _figure(figure: Figure, scale: float, form: str) -> str:
    if np.isnan(figure.value):
        return "-"
    value, low, high = (format(scale * each, form) for each in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"
