"""Stage ``ab``: adapters and their base on the same prompts, and in the sessions that they served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from loraloop.errors import ConfigError
from loraloop.workflows import ab_test
from loraloop.workflows import rows as data

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.feedback.settings import Feedback
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.serve.local import LocalBackend
    from loraloop.serve.names import Versions


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
        ConfigError: Fewer than two adapters are named, or live sessions were asked for and there is no store.
        UnknownVersionError: A version does not exist.
        DataError: None of them has a live session.
    """
    from loraloop.serve.names import Versions

    versions = Versions(registry.resolve, names)
    chosen = _chosen(adapters, versions)
    if not live:
        loaded = model.load()
        built = data.prepare(source, ocr, dataset, loaded.tokenizer)
        rng = np.random.default_rng(job.seed)
        rows = ab_test.sample(built.validation, prompts, rng)
        answers = ab_test.answer(serve, loaded, versions, chosen, rows)
        ab_test.warn_of_other_training(chosen, versions, built, dataset)
        ab_test.print_answers(chosen, rows, answers, source.correct, rng)
    ab_test.print_sessions(job, chosen, feedback, required=live)


def _chosen(adapters: object, versions: Versions) -> list[str]:
    from loraloop.serve.names import BASE

    wanted = [str(each) for each in adapters] if isinstance(adapters, list) else []
    found = list(dict.fromkeys(name if name == BASE else versions.find(name)[0] for name in wanted))
    if len(found) < 2:
        raise ConfigError(f"adapters={adapters}: name two or more different ones, such as adapters=[base,ocr@7]")
    return found
