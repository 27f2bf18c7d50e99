"""The part that measures base and adapter on the same held-out rows (promise T5)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from loraloop.core.chat_templates import CHAT
from loraloop.core.metrics import Measurement, Rule, exact, summarise
from loraloop.core.part import part
from loraloop.core.progress import Progress
from loraloop.core.tokens import encode_prompt, encode_rows
from loraloop.core.turns import turns
from loraloop.errors import DataError
from loraloop.evaluation import store
from loraloop.evaluation.continued import Asked, measure
from loraloop.evaluation.encode import answer_lengths, answerable, fit, shorten
from loraloop.evaluation.few_shot import with_examples
from loraloop.evaluation.general import instructions
from loraloop.evaluation.general.lm_eval_tasks import Measured, Tasks
from loraloop.evaluation.infer import likelihoods
from loraloop.records import Generation, LoadedModel, Quarantined, Row, Score

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

SLACK = 8
"""Tokens that an answer may be longer than the longest expected one before it is cut off."""


@part
class Evaluation:
    """Loss, perplexity and greedy answers of a causal model on held-out rows.

    Attributes:
        batch_tokens: Tokens per batch, padding included; only memory and speed depend on it.
        max_new_tokens: Answers stop here; earlier if every expected answer is shorter than that by 8 tokens.
        samples: Rows in the table of best, worst and random answers.
        max_rows: Score a seeded sample of this many rows; ``None`` scores all.
        seed: Draws ``max_rows`` and the random samples.
        cache: Folder in which the base's measurements are kept; ``None`` measures every time.
        few_shot: Nearest training conversations that the base is also measured with; 0 leaves that out.
        general: Whether base and adapter also answer a frozen set of general instructions.
        lm_eval: Names of lm-eval's tasks that base and adapter are measured on too.
        lm_eval_path: Folder with tasks of your own, in lm-eval's YAML; Python that it names is executed.
        lm_eval_limit: Documents of each task, the first ones; ``None`` takes all.
    """

    batch_tokens: Annotated[int, Field(ge=1)] = 8192
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    samples: Annotated[int, Field(ge=0)] = 24
    max_rows: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    cache: Path | None = Path("mlruns/cache/scores")
    few_shot: Annotated[int, Field(ge=0)] = 0
    general: bool = False
    lm_eval: tuple[str, ...] = ()
    lm_eval_path: Path | None = None
    lm_eval_limit: Annotated[int, Field(ge=2)] | None = None

    def check(self) -> None:
        """Refuse tasks of lm-eval that are not there."""
        if self.lm_eval:
            self._tasks.check()

    def score(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Row],
        correct: Rule,
        label: str = "evaluate",
    ) -> Score:
        """Measure ``model``, a base or a PEFT model, on ``rows``; the result does not depend on the batching.

        Each learned turn of a conversation is answered, and scored, with its true past. A prompt that does not fit the
        model's positions loses its beginning, and a row whose answer alone does not fit is left out, each with one
        warning that counts them.

        Args:
            model: A causal model with ``generate``.
            tokenizer: Its tokenizer.
            rows: Held-out rows.
            correct: The source's rule for a right answer.
            label: What the progress is called.

        Raises:
            DataError: There are no rows, or none whose answer fits the model's positions.
        """
        chosen = self._chosen(rows, model, tokenizer)
        return summarise(chosen, self._measure(model, tokenizer, chosen, label), correct)

    def score_base(
        self, loaded: LoadedModel, rows: Sequence[Row], correct: Rule, label: str = "evaluate base"
    ) -> Score:
        """Like :meth:`score`, but measured once per base, rows and way of answering; see :func:`store.key`.

        The cache holds what the model did, not its marks: ``correct`` is applied anew. A base with random weights is
        never cached, as its identity does not tell its weights.
        """
        chosen = self._chosen(rows, loaded.model, loaded.tokenizer)
        return self._cached(loaded, chosen, correct, label, nullcontext(loaded.model))

    def score_few_shot(
        self, loaded: LoadedModel, rows: Sequence[Row], train: Sequence[Row], correct: Rule
    ) -> Score | None:
        """The score of the base with training rows as examples before each question; ``None`` without ``few_shot``.

        Args:
            loaded: The base.
            rows: Held-out rows.
            train: What the examples are taken from, see :func:`with_examples`.
            correct: The source's rule for a right answer.
        """
        if not self.few_shot:
            return None
        chosen = self._chosen(rows, loaded.model, loaded.tokenizer)
        positions, _ = _limits(loaded.model, loaded.tokenizer)
        longest = None
        if positions is not None:
            answer = answer_lengths(chosen, loaded.tokenizer)
            room = min(self.max_new_tokens, max(answer) + SLACK)
            longest = [positions - max(room, each) for each in answer]
        shown = with_examples(chosen, train, self.few_shot, loaded.tokenizer, longest)
        return self._cached(loaded, shown, correct, "evaluate base with examples", nullcontext(loaded.model))

    def score_adapter(
        self,
        loaded: LoadedModel,
        rows: Sequence[Row],
        correct: Rule,
        content: str,
        attached: AbstractContextManager[torch.nn.Module],
        label: str,
    ) -> Score:
        """The score of a registered adapter on its base, cached like that of the base.

        Args:
            loaded: The base.
            rows: Held-out rows.
            correct: The source's rule for a right answer.
            content: The adapter's content hash.
            attached: Gives the base with the adapter; it is entered only where the score is not cached.
            label: What the progress is called.
        """
        chosen = self._chosen(rows, loaded.model, loaded.tokenizer)
        return self._cached(loaded, chosen, correct, label, attached, content)

    def score_general(self, loaded: LoadedModel, template: str, adapted: torch.nn.Module | None = None) -> Score | None:
        """The score on the general instructions, of the base or of an adapter on it; ``None`` without ``general``.

        Args:
            loaded: The base.
            template: How an instruction is asked.
            adapted: The base with an adapter.
        """
        if not self.general:
            return None
        asked, whole = instructions.rows(template, loaded.tokenizer), replace(self, max_rows=None)
        if adapted is None:
            return whole.score_base(loaded, asked, instructions.correct, "general instructions, base")
        return whole.score(adapted, loaded.tokenizer, asked, instructions.correct, "general instructions, adapter")

    def measure_tasks(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, template: str
    ) -> Measured | None:
        """The tasks of lm-eval by a base, or an adapter on it; ``None`` without ``lm_eval``.

        Args:
            model: What is measured; it is measured anew each time.
            tokenizer: Its tokenizer.
            template: Of the data: with ``chat`` the tasks are asked in the tokenizer's chat template too.
        """
        return self._tasks.measure(model, tokenizer, chat=template == CHAT) if self.lm_eval else None

    @property
    def _tasks(self) -> Tasks:
        return Tasks(self.lm_eval, self.lm_eval_path, self.lm_eval_limit)

    def _cached(
        self,
        loaded: LoadedModel,
        chosen: Sequence[Row],
        correct: Rule,
        label: str,
        answering: AbstractContextManager[torch.nn.Module],
        adapter: str | None = None,
    ) -> Score:
        path = None
        if self.cache is not None and loaded.base.weights != "random":
            path = self.cache / f"{store.key(loaded, chosen, self.max_new_tokens, adapter)}.json"
        measured = store.recall(path, len(chosen)) if path else None
        if measured is None:
            with answering as model:
                measured = self._measure(model, loaded.tokenizer, chosen, label)
            if path:
                store.keep(path, measured)
        return summarise(chosen, measured, correct)

    def table(self, score: Score, others: Mapping[str, Score | None] | None = None) -> list[dict[str, Any]]:
        """``samples`` answers as uniform rows: a third each of the best, the worst and a seeded draw of the others.

        Args:
            score: Whose answers are sorted.
            others: Scores of the same rows by the name of a column that shows their answers; ``None`` shows none.
        """
        shown = {name: other.generations for name, other in (others or {}).items() if other is not None}
        order = sorted(range(len(score.generations)), key=lambda i: _quality(score.generations[i]), reverse=True)
        count = min(self.samples, len(order))
        best, worst = order[: (count + 2) // 3], order[len(order) - (count + 1) // 3 :][::-1]
        between = order[len(best) : len(order) - len(worst)]
        drawn = np.random.default_rng(self.seed).permutation(between)[: count // 3].tolist()
        groups = (("best", best), ("worst", worst), ("random", drawn))
        return [
            _cells(group, score.generations[i]) | {name: each[i].answer for name, each in shown.items()}
            for group, index in groups
            for i in index
        ]

    def chosen(
        self, rows: Sequence[Row], model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[Row], list[Quarantined]]:
        """The learned turns of the rows that are scored, and those that no answer of the model can match.

        An answer that is labelled bad is not what is expected. One of more tokens than the model's positions cannot be
        scored.

        Raises:
            DataError: There are no rows, or none whose answer fits the model's positions.
        """
        bad = sum(row.example.label is False for row in rows)
        if bad == len(rows):
            among = f" among {bad} that are labelled bad" if bad else ""
            raise DataError(f"there are no held-out rows to score{among}: collect more rows or hold out a larger share")
        rows = [row for row in rows if row.example.label is not False]
        if self.max_rows is not None and self.max_rows < len(rows):
            drawn = np.random.default_rng(self.seed).choice(len(rows), self.max_rows, replace=False)
            rows = [rows[i] for i in sorted(drawn.tolist())]
        asked = [turn for row in rows for turn in turns(row, str(tokenizer.eos_token))]
        kept, long = answerable(asked, tokenizer, _limits(model, tokenizer)[0])
        if not kept:
            raise DataError(
                f"none of the {len(asked)} held-out rows can be scored, each has {long[0].reason}: split the answers, "
                "or use a model with more positions"
            )
        return kept, long

    def _chosen(self, rows: Sequence[Row], model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> Sequence[Row]:
        kept, long = self.chosen(rows, model, tokenizer)
        if long:
            first, total = long[0], len(kept) + len(long)
            log.warning(
                "%d of %d held-out rows are not scored, the first is %s: %s", len(long), total, first.item, first.reason
            )
        return kept

    def _measure(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], label: str
    ) -> Measurement:
        limit, start = _limits(model, tokenizer)
        encoded = fit(encode_rows(tokenizer, [(row.prompt, row.completion) for row in rows]), limit, start)
        worse = {i: row.rejected for i, row in enumerate(rows) if row.rejected is not None}
        rejected = fit(encode_rows(tokenizer, [(rows[i].prompt, text) for i, text in worse.items()]), limit, start)
        expected = [len(ids) - prompt for ids, prompt in encoded]
        room = self._room(expected)
        prompts = [encode_prompt(tokenizer, row.prompt) for row in rows]
        if limit is not None:
            prompts = [shorten(ids, max(1, limit - room), start) for ids in prompts]
        with Progress(label, "pass", 2 * len(rows) + len(worse)) as progress:
            asked = [Asked(ids, start, prompt) for (ids, start), prompt in zip(encoded, prompts, strict=True)]
            nll, tokens, found = measure(model, tokenizer, asked, room, self.batch_tokens, progress.advance)
            rejected_nll, _ = likelihoods(model, rejected, self.batch_tokens, progress.advance)
        by_row = dict(zip(worse, rejected_nll, strict=True))
        return Measurement(tuple(nll), tuple(tokens), tuple(found), tuple(by_row.get(i) for i in range(len(rows))))

    def _room(self, expected: Sequence[int]) -> int:
        long = sum(count - 1 > self.max_new_tokens for count in expected)
        if long:
            log.warning(
                "%d of %d expected answers are longer than evaluation.max_new_tokens=%d and cannot match: raise it",
                long,
                len(expected),
                self.max_new_tokens,
            )
        return min(self.max_new_tokens, max(expected) + SLACK)


def _limits(model: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int | None, int | None]:
    return getattr(model.config, "max_position_embeddings", None), tokenizer.bos_token_id


def _quality(answer: Generation) -> tuple[bool, bool, float]:
    from rapidfuzz.fuzz import ratio

    return answer.correct, exact(answer.answer, answer.expected), float(ratio(answer.answer, answer.expected))


def _cells(group: str, answer: Generation) -> dict[str, Any]:
    return {
        "group": group,
        "task": answer.task,
        "prompt": answer.prompt,
        "expected": answer.expected,
        "answer": answer.answer,
        "correct": answer.correct,
    }
