"""The metrics: what each is called, which way it is better, how it and its standard error are computed.

To add one is to add a row to :data:`METRICS`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loraloop.core.tool_calls import Judgement, judge
from loraloop.records import Example, Generation, Row, Score

Rule = Callable[[Example, str], bool]
"""The source's own rule: whether an answer solves an example."""


GROUPS = 20
"""Of rows that are left out in turn for the standard error of a corpus metric."""


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
    return float(_bleu().corpus_score(list(answers), [list(expected)]).score)


def _bleu() -> Any:
    import sacrebleu

    return sacrebleu.BLEU(effective_order=True, force=True)


def chrf(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Corpus chrF2 by sacrebleu, 0..100 (Popović 2015)."""
    return float(_chrf().corpus_score(list(answers), [list(expected)]).score)


def _chrf() -> Any:
    import sacrebleu

    return sacrebleu.CHRF()


@dataclass(frozen=True, slots=True)
class Answers:
    """What a metric is computed from, row by row.

    Attributes:
        found: Answers, without white space around them.
        truth: Expected ones, likewise.
        correct: Whether the source's own rule accepts the answer.
        nll: See :class:`Measurement`; so are ``tokens`` and ``rejected_nll``.
        calls: How the calls of the answer compare with the expected ones; ``None`` where no call is expected.
        conversations: What the turns of one conversation share; empty where a row stands alone.
    """

    found: Sequence[str]
    truth: Sequence[str]
    correct: Sequence[bool]
    nll: Sequence[float]
    tokens: Sequence[int]
    rejected_nll: Sequence[float | None]
    calls: Sequence[Judgement | None]
    conversations: Sequence[str]

    def of(self, index: Sequence[int]) -> Answers:
        """The same for some of the rows."""
        return Answers(*([getattr(self, each.name)[i] for i in index] for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    Attributes:
        label: In figures.
        higher: Whether a higher value is better.
        value: Computes it from one row or more; ``None`` where it does not apply to them.
        error: Computes its standard error; ``None`` where the rows do not tell.
        row: Computes it from one row's answer; ``None`` where it does not apply to the row, or was not kept. For the
            loss, and the perplexity, which orders models in the same way, the sum over the row's tokens.
        scale: What a value is multiplied with to lie in 0..100; ``None`` for a metric that has no such range.
    """

    label: str
    higher: bool
    value: Callable[[Answers], float | None]
    error: Callable[[Answers], float | None]
    row: Callable[[Generation], float | None]
    scale: float | None = None


def _by_conversation(values: Sequence[float], conversations: Sequence[str]) -> NDArray[np.float64]:
    """The values summed over the turns of each conversation; a row that stands alone keeps its own."""
    sums: dict[str | int, float] = defaultdict(float)
    for place, (value, conversation) in enumerate(zip(values, conversations, strict=True)):
        sums[conversation or place] += value
    return np.array(list(sums.values()))


def _mean(
    of: Callable[[Answers], Sequence[float | None]],
) -> tuple[Callable[..., float | None], Callable[..., float | None]]:
    """Value and standard error of a metric that is a mean over the rows that it applies to.

    The error is ``s / sqrt(n)``; the turns of a conversation are not independent, so that their residuals are summed
    first (Cameron and Miller 2015, J. Human Resources 50:2, for a mean).
    """

    def value(answers: Answers) -> float | None:
        each = [one for one in of(answers) if one is not None]
        return float(np.mean(each)) if each else None

    def error(answers: Answers) -> float | None:
        pairs = zip(of(answers), answers.conversations, strict=True)
        each = [(one, conversation) for one, conversation in pairs if one is not None]
        values, conversations = [one for one, _ in each], [conversation for _, conversation in each]
        if not any(conversations):
            return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
        mean = float(np.mean(values))
        sums = _by_conversation([one - mean for one in values], conversations)
        groups = len(sums)
        return math.sqrt(groups / (groups - 1) * float(np.sum(sums**2))) / len(values) if groups > 1 else None

    return value, error


def _corpus(
    of: Callable[[Sequence[str], Sequence[str]], float], make: Callable[[], Any]
) -> tuple[Callable[..., float | None], Callable[..., float | None]]:
    """Value and standard error of a metric over all answers together.

    The error is the delete-a-group jackknife's (Kott 2001, J. Official Statistics 17:4), rows dealt to groups in turn,
    the turns of a conversation to one group.

    Args:
        of: The metric.
        make: sacrebleu's scorer for it.
    """

    def value(answers: Answers) -> float:
        return of(answers.found, answers.truth)

    def error(answers: Answers) -> float | None:
        numbers: dict[str | int, int] = {}
        places = [numbers.setdefault(each or row, len(numbers)) for row, each in enumerate(answers.conversations)]
        groups = min(GROUPS, len(numbers))
        if groups < 2:
            return None
        # sacrebleu's public call would count the n-grams of every row anew for every group.
        scorer = make()
        counts = scorer._extract_corpus_statistics(list(answers.found), [list(answers.truth)])
        kept = [
            [each for each, place in zip(counts, places, strict=True) if place % groups != group]
            for group in range(groups)
        ]
        without = np.array([scorer._aggregate_and_compute(each).score for each in kept])
        return float(math.sqrt((groups - 1) / groups * np.sum((without - without.mean()) ** 2)))

    return value, error


def _loss(answers: Answers) -> float:
    tokens = sum(answers.tokens)
    return math.fsum(answers.nll) / tokens if tokens else math.nan


def _loss_error(answers: Answers) -> float | None:
    """Standard error of a ratio of sums over rows (Cochran 1977, Sampling Techniques, equation 6.13).

    The turns of a conversation count as one row.
    """
    tokens, loss = sum(answers.tokens), _loss(answers)
    if not math.isfinite(loss):
        return None
    residuals = np.asarray(answers.nll) - loss * np.asarray(answers.tokens)
    if any(answers.conversations):
        residuals = _by_conversation(residuals.tolist(), answers.conversations)
    rows = len(residuals)
    if rows < 2:
        return None
    return float(math.sqrt(rows / (rows - 1) * np.sum(residuals**2)) / tokens)


def _perplexity_error(answers: Answers) -> float | None:
    """By the delta method: the loss's error times the derivative of ``exp``, which is the perplexity."""
    error = _loss_error(answers)
    return None if error is None else error * perplexity(_loss(answers))


def _exact(answers: Answers) -> list[float]:
    return [float(exact(found, truth)) for found, truth in zip(answers.found, answers.truth, strict=True)]


def _correct(answers: Answers) -> list[float]:
    return [float(each) for each in answers.correct]


def _rouge(answers: Answers) -> list[float]:
    return [rouge_l(found, truth) for found, truth in zip(answers.found, answers.truth, strict=True)]


def _preferred(answers: Answers) -> list[float | None]:
    pairs = zip(answers.nll, answers.rejected_nll, strict=True)
    return [None if worse is None else float(nll < worse) for nll, worse in pairs]


def _row(of: Callable[[str, str], float]) -> Callable[[Generation], float]:
    """A metric of an answer and the expected one, without white space around them."""
    return lambda each: float(of(each.answer.strip(), each.expected.strip()))


def _calls(label: str, name: str) -> Metric:
    """The share of the turns that should call tools whose calls are right in one way of :class:`Judgement`."""

    def of(answers: Answers) -> list[float | None]:
        return [None if each is None else float(getattr(each, name)) for each in answers.calls]

    def row(each: Generation) -> float | None:
        return None if each.calls is None else float(each.calls[name])

    return Metric(label, True, *_mean(of), row, 100)


METRICS: Mapping[str, Metric] = {
    "loss": Metric("loss", False, _loss, _loss_error, lambda each: each.nll),
    "perplexity": Metric(
        "perplexity", False, lambda answers: perplexity(_loss(answers)), _perplexity_error, lambda each: each.nll
    ),
    "exact_match": Metric("exact match", True, *_mean(_exact), _row(exact), 100),
    "task_accuracy": Metric("task accuracy", True, *_mean(_correct), lambda each: float(each.correct), 100),
    "rouge_l": Metric("ROUGE-L", True, *_mean(_rouge), _row(rouge_l), 100),
    "bleu": Metric("BLEU", True, *_corpus(bleu, _bleu), _row(lambda found, truth: bleu([found], [truth])), 1),
    "chrf": Metric("chrF", True, *_corpus(chrf, _chrf), _row(lambda found, truth: chrf([found], [truth])), 1),
    "preference_accuracy": Metric("preference accuracy", True, *_mean(_preferred), lambda each: each.preferred, 100),
    "tool_call_validity": _calls("tool-call validity", "valid"),
    "tool_name_accuracy": _calls("tool-name accuracy", "names"),
    "tool_argument_accuracy": _calls("tool-argument accuracy", "arguments"),
    "tool_call_accuracy": _calls("tool-call accuracy", "right"),
}
"""``preference_accuracy``: share of the rows with a rejected answer whose completion the model finds likelier.

The last four are over the turns that should call tools, see :class:`loraloop.core.tool_calls.Judgement`.
"""
COSTS: Mapping[str, bool] = {
    "trainable_parameters": False,
    "peak_memory_bytes": False,
    "seconds": False,
    "tokens_per_second": True,
}
"""What a run takes; whether more of it is better."""
OBJECTIVES = (*METRICS, *COSTS)
"""What a run can return and a sweep search."""


def direction(objective: str) -> Literal["minimize", "maximize"]:
    """Which way an objective is better.

    Raises:
        KeyError: It is none of :data:`OBJECTIVES`.
    """
    higher = COSTS[objective] if objective in COSTS else METRICS[objective].higher
    return "maximize" if higher else "minimize"


def summarise(rows: Sequence[Row], measured: Measurement, correct: Rule) -> Score:
    """The score of a measurement, over all rows and per task.

    Rows without a task form the slice ``other``.
    """
    right = [correct(row.example, answer) for row, answer in zip(rows, measured.answers, strict=True)]
    tasks = [row.example.task or "other" for row in rows]
    answers = Answers(
        found=[answer.strip() for answer in measured.answers],
        truth=[row.completion.strip() for row in rows],
        correct=right,
        nll=measured.nll,
        tokens=measured.tokens,
        rejected_nll=measured.rejected_nll,
        calls=[_judged(row, answer) for row, answer in zip(rows, measured.answers, strict=True)],
        conversations=conversations(rows),
    )
    overall = _score(answers)
    slices = {tasks[0]: overall}
    if len(set(tasks)) > 1:
        slices = {task: _score(answers.of([i for i, each in enumerate(tasks) if each == task])) for task in set(tasks)}
    generations = tuple(
        Generation(
            task=task,
            prompt=row.prompt,
            expected=row.completion,
            answer=measured.answers[place],
            correct=right[place],
            nll=measured.nll[place],
            preferred=None if (worse := measured.rejected_nll[place]) is None else measured.nll[place] < worse,
            calls=None if (judged := answers.calls[place]) is None else asdict(judged),
            conversation=answers.conversations[place],
        )
        for place, (task, row) in enumerate(zip(tasks, rows, strict=True))
    )
    return replace(overall, slices=dict(sorted(slices.items())), generations=generations)


def _judged(row: Row, answer: str) -> Judgement | None:
    expected = row.example.messages[-1].tool_calls
    return judge(answer, expected, row.example.tools) if expected else None


def conversations(rows: Sequence[Row]) -> list[str]:
    """The origin of each row that is one of several turns of a conversation; empty for a row of its own."""
    longer = {row.example.origin for row in rows if sum(each.is_target for each in row.example.messages) > 1}
    return [row.example.origin if row.example.origin in longer else "" for row in rows]


def _score(answers: Answers) -> Score:
    values = {name: metric.value(answers) for name, metric in METRICS.items()}
    errors = {name: metric.error(answers) for name, metric in METRICS.items() if values[name] is not None}
    return Score(
        rows=len(answers.found),
        values={name: value for name, value in values.items() if value is not None},
        errors={name: error for name, error in errors.items() if error is not None},
    )
