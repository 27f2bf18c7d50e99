"""From what a model answered to a Score: pure functions over rows and a measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loraloop.records import Example, Generation, Row, Score

Rule = Callable[[Example, str], bool]
"""The source's own rule: whether an answer solves an example."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a model did on each row, in the order of the rows.

    Attributes:
        nll: Negative log-likelihood of the completion and its end token, in nats.
        tokens: How many tokens ``nll`` is the sum over.
        answers: Greedy answers.
        rejected_nll: The same as ``nll`` for the rejected completion; ``None`` for a row without one.
    """

    nll: tuple[float, ...]
    tokens: tuple[int, ...]
    answers: tuple[str, ...]
    rejected_nll: tuple[float | None, ...]


def perplexity(loss: float) -> float:
    """``exp(loss)``, infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def exact(answer: str, expected: str) -> bool:
    """Equal apart from white space around them."""
    return answer.strip() == expected.strip()


def rouge_l(answer: str, expected: str) -> float:
    """F1 of the longest common subsequence of white-space tokens, 0..1 (Lin 2004, ROUGE, section 3, beta = 1)."""
    from rapidfuzz.distance import LCSseq

    found, truth = answer.split(), expected.split()
    if not found or not truth:
        return float(found == truth)
    return float(2 * LCSseq.similarity(found, truth) / (len(found) + len(truth)))


def bleu(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Corpus BLEU by sacrebleu, 0..100 (Papineni et al. 2002; Post 2018).

    With effective order: n-gram orders that no expected answer is long enough for are left out, where plain BLEU
    would be 0 for a perfect set of one-word answers.
    """
    import sacrebleu

    scorer = sacrebleu.BLEU(effective_order=True, force=True)
    return float(scorer.corpus_score(list(answers), [list(expected)]).score)


def chrf(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Corpus chrF2 by sacrebleu, 0..100 (Popović 2015)."""
    import sacrebleu

    return float(sacrebleu.CHRF().corpus_score(list(answers), [list(expected)]).score)


def _rates(rows: Sequence[Row], measured: Measurement, right: Sequence[bool], index: Sequence[int]) -> dict[str, float]:
    found = [measured.answers[i].strip() for i in index]
    truth = [rows[i].completion.strip() for i in index]
    tokens = sum(measured.tokens[i] for i in index)
    loss = math.fsum(measured.nll[i] for i in index) / tokens if tokens else math.nan
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "exact_match": float(np.mean([exact(a, e) for a, e in zip(found, truth, strict=True)])),
        "task_accuracy": float(np.mean([right[i] for i in index])),
        "rouge_l": float(np.mean([rouge_l(a, e) for a, e in zip(found, truth, strict=True)])),
        "bleu": bleu(found, truth),
        "chrf": chrf(found, truth),
    }


def _preference(measured: Measurement, index: Sequence[int]) -> dict[str, float]:
    pairs = [(measured.nll[i], worse) for i in index if (worse := measured.rejected_nll[i]) is not None]
    return {"preference_accuracy": float(np.mean([nll < worse for nll, worse in pairs]))} if pairs else {}


def summarise(rows: Sequence[Row], measured: Measurement, correct: Rule) -> Score:
    """The score of a measurement, over all rows and per task.

    A slice also holds ``rows``, and ``preference_accuracy`` where its rows have rejected answers: the share in which
    the model finds the completion likelier than the rejected one. Rows without a task form the slice ``other``.
    """
    right = [correct(row.example, answer) for row, answer in zip(rows, measured.answers, strict=True)]
    tasks = [row.example.task or "other" for row in rows]
    slices = {}
    for task in sorted(set(tasks)):
        index = [i for i, name in enumerate(tasks) if name == task]
        slices[task] = {
            "rows": float(len(index)),
            **_rates(rows, measured, right, index),
            **_preference(measured, index),
        }
    generations = tuple(
        Generation(task=task, prompt=row.prompt, expected=row.completion, answer=answer, correct=solved)
        for task, row, answer, solved in zip(tasks, rows, measured.answers, right, strict=True)
    )
    overall = _rates(rows, measured, right, range(len(rows)))
    return Score(rows=len(rows), slices=slices, generations=generations, **overall)
