"""The answers of an export beside the recorded ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from loraloop.records import Compared, Difference, Generation, Logits, Probe, RuntimeAnswer

SHOWN = 5
SHOWN_CHARACTERS = 20
Judge = Callable[[Generation, str], float | None]


def equal(recorded: str, answer: RuntimeAnswer) -> bool:
    """Whether an answer is the recorded one; one that was cut may have been cut a token earlier or later there."""
    cut = not answer.ended and (recorded.startswith(answer.text) or answer.text.startswith(recorded))
    return recorded == answer.text or cut


def differences(known: Sequence[Generation], answers: Sequence[RuntimeAnswer]) -> tuple[list[Difference], float]:
    """The first differing tokens of some answers, and the share of equal ones.

    A prompt is given without what all prompts end with.
    """
    other = [(each, made) for each, made in zip(known, answers, strict=True) if not equal(each.answer, made)]
    shared = _shared_end([each.prompt for each in known])
    shown = [
        first_difference(replace(each, prompt=each.prompt.removesuffix(shared)), made) for each, made in other[:SHOWN]
    ]
    return shown, 1 - len(other) / len(known)


def _shared_end(prompts: Sequence[str]) -> str:
    """What all prompts end with: the template's call for an answer, which tells none from another."""
    turned = sorted({prompt[::-1] for prompt in prompts})
    first, last = turned[0], turned[-1]
    if first == last:
        return ""
    same = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:same][::-1]


def first_difference(known: Generation, answer: RuntimeAnswer) -> Difference:
    """Where an answer leaves the recorded one: the token's place from 0, its text, and how the recorded text goes on.

    An answer that ends too early differs by its end.
    """
    begin = ""
    for place, token in enumerate(answer.tokens):
        if not known.answer.startswith(begin + token):
            return Difference(
                prompt=known.prompt, token=place, export=token, recorded=known.answer[len(begin) :][:SHOWN_CHARACTERS]
            )
        begin += token
    rest = known.answer[len(begin) :][:SHOWN_CHARACTERS]
    return Difference(prompt=known.prompt, token=len(answer.tokens), export="(end)", recorded=rest)


def scores(known: Sequence[Generation], answers: Sequence[str]) -> dict[str, Compared]:
    """Each metric that an answer and the expected text alone tell, of the export and as recorded, on the same rows.

    The standard error is that of the mean, ``s / sqrt(n)``.
    """
    made = {}
    for name, judge in _judges().items():
        pairs = [(judge(each, answer), judge(each, each.answer)) for each, answer in zip(known, answers, strict=True)]
        both = [(here, there) for here, there in pairs if here is not None and there is not None]
        if both:
            here, there = zip(*both, strict=True)
            (value, error), (recorded, recorded_error) = _mean(here), _mean(there)
            made[name] = Compared(value=value, error=error, recorded=recorded, recorded_error=recorded_error)
    return made


def logits(probe: Probe, found: Mapping[int, float]) -> Logits:
    """The likeliest tokens of an export beside those that the manifest records."""
    recorded = dict(zip(probe.tokens, probe.logits, strict=True))
    shared = recorded.keys() & found.keys()
    off = {token: found[token] - recorded[token] for token in shared}
    centre = statistics.fmean(off.values()) if off else 0.0
    most = max((abs(value - centre) for value in off.values()), default=None)
    known = most is not None and all(map(math.isfinite, off.values()))
    return Logits(tokens=len(recorded), shared=len(shared), difference=most if known else None)


def _judges() -> Mapping[str, Judge]:
    from loraloop.core.metrics import exact, rouge_l

    return {
        "exact_match": lambda known, answer: float(exact(answer, known.expected)),
        "rouge_l": lambda known, answer: rouge_l(answer, known.expected),
        "tool_call_accuracy": _called,
    }


def _called(known: Generation, answer: str) -> float | None:
    """Whether an answer calls what is expected, the schemas of the tools being unknown; ``None`` where no call is."""
    from loraloop.core import tool_calls

    if known.calls is None:
        return None
    return float(tool_calls.judge(answer, tool_calls.read(known.expected), ()).right)


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    count = len(values)
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(count) if count > 1 else None
