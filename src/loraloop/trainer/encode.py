"""Rows to tokens and labels, by the rule of TRL's SFTTrainer for prompt and completion columns; which rows fit."""

from __future__ import annotations

import logging
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.core import tokens
from loraloop.core.rendering import Renderer
from loraloop.core.row_name import row_name
from loraloop.core.tokens import IGNORED
from loraloop.errors import DataError, TooLongError
from loraloop.records import Encoded, Fitting, Quarantined, Row
from loraloop.trainer.settings import LossOn, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEFT_OUT_SHARE = 0.5
"""Share of the rows that may be too long; with more of them the setting is wrong, not the rows."""
KEPT = 4  # rows to train on and to validate with, by the tokenizers of a base's shape and of the base

log = logging.getLogger(__name__)


# The rows and tokenizers are kept so that no other object takes their ids.
_kept: dict[tuple[int, int, LossOn], tuple[object, object, list[Encoded]]] = {}


def encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, loss_on: LossOn = "assistant") -> list[Encoded]:
    """Tokenise rows by the rule of :mod:`loraloop.core.tokens`, and label what is learned.

    The same tuple of rows with the same tokenizer is tokenised once: an estimate and every trial of a sweep ask again.

    Args:
        rows: Prompt and completion; the tokenizer adds its own first token.
        tokenizer: With an end token.
        loss_on: ``assistant``: every learned turn; ``last``: the completion; ``all``: every token.

    Raises:
        DataError: The tokenizer has no end token, or does not tell where the turns stand.
    """
    if not isinstance(rows, tuple):
        return _encode(rows, tokenizer, loss_on)
    key = (id(rows), id(tokenizer), loss_on)
    if key not in _kept:
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = (rows, tokenizer, _encode(rows, tokenizer, loss_on))
    return _kept[key][2]


def _encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, loss_on: LossOn) -> list[Encoded]:
    pairs = tokens.encode_rows(tokenizer, [(row.prompt, row.completion) for row in rows])
    if any(whole[-1] != tokenizer.eos_token_id for whole, _ in pairs):
        raise DataError(
            f"the end token {tokenizer.eos_token!r} of {tokenizer.name_or_path!r} is not read as the token "
            f"{tokenizer.eos_token_id} that ends an answer, so no answer would learn to end: add it to the tokenizer's "
            "special tokens"
        )
    return [
        Encoded(whole, _labels(row, whole, start, tokenizer, loss_on))
        for row, (whole, start) in zip(rows, pairs, strict=True)
    ]


def _labels(row: Row, whole: list[int], start: int, tokenizer: PreTrainedTokenizerBase, loss_on: LossOn) -> list[int]:
    if loss_on == "all":
        return list(whole)
    labels = [IGNORED] * start + whole[start:]
    if loss_on == "assistant" and row.earlier:
        for first, end in tokens.within(tokenizer, row.prompt, row.earlier):
            labels[first:end] = whole[first:end]
    return labels


def fit_rows(
    rows: Sequence[Row], sides: Sequence[list[Encoded]], max_length: int, name: str, most: int = sys.maxsize
) -> Fitting:
    """The rows whose tokens fit whole: an answer is never cut, because the model would learn not to end it.

    Args:
        rows: Named where they are left out.
        sides: For each row its tokens, once or twice.
        max_length: Tokens per row and side.
        name: What the rows are for, for the message.
        most: Tokens that the base takes, as far as its tokenizer says.

    Raises:
        TooLongError: Most of the rows are too long.
    """
    longest = [max(len(side.input_ids) for side in each) for each in zip(*sides, strict=True)]
    fit = [index for index, length in enumerate(longest) if length <= max_length]
    long = [index for index, length in enumerate(longest) if length > max_length]
    if len(long) > LEFT_OUT_SHARE * len(longest):
        takes_all = f"write trainer.max_length={max(longest)}, which takes all"
        ways = [takes_all if max(longest) <= most else f"raise trainer.max_length (the base takes {most} at most)"]
        if any(sum(each.role == "user" for each in row.example.messages) > 1 for row in rows):
            ways.append("write trainer.too_long=oldest_turns")
        raise TooLongError(
            f"{len(long)} of {len(longest)} {name} rows have more tokens than trainer.max_length={max_length}, and an "
            f"answer is never cut: {', '.join(ways)} or shorten the prompts",
            Fitting(list(rows), tuple(sides), ()),
        )
    reason = f"more tokens than trainer.max_length={max_length}"
    left_out = tuple(Quarantined(row_name(rows[index]), reason) for index in long)
    return Fitting([rows[index] for index in fit], tuple([side[index] for index in fit] for side in sides), left_out)


def fit_answers(
    settings: Settings,
    rows: Sequence[Row],
    left_out: tuple[Quarantined, ...],
    tokenizer: PreTrainedTokenizerBase,
    name: str,
) -> Fitting:
    """The rows, each with its one answer, as ``settings`` make them seen; those too long join ``left_out``.

    Raises:
        TooLongError: As :func:`fit_rows`.
    """
    taken = shorten(rows, tokenizer, settings.max_length) if settings.too_long == "oldest_turns" else rows
    sides = [encode(taken, tokenizer, settings.loss_on)]
    fitting = fit_rows(taken, sides, settings.max_length, name, tokenizer.model_max_length)
    return counted(replace(fitting, left_out=left_out + fitting.left_out), rows)


def shorten(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Sequence[Row]:
    """The rows, those that are too long without as many of their conversation's oldest turns as needed.

    What the system says stays, the rest begins with a user's turn, and the last turn stays whole: a row that is still
    too long is returned as it is. ``rows`` itself is returned where every row fits.
    """
    lengths = _lengths(rows, tokenizer)
    if max(lengths, default=0) <= max_length:
        return rows
    return [
        row if length <= max_length else _shortened(row, tokenizer, max_length)
        for row, length in zip(rows, lengths, strict=True)
    ]


def counted(fitting: Fitting, rows: Sequence[Row]) -> Fitting:
    """``fitting`` with the number of its rows that :func:`shorten` made of others than these."""
    own = {id(row) for row in rows}
    return replace(fitting, shortened=sum(id(row) not in own for row in fitting.rows))


def _shortened(row: Row, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Row:
    said = row.example.messages
    users = [place for place, message in enumerate(said) if message.role == "user"]
    if not row.template or len(users) < 2:
        return row
    system = said[: users[0]]

    def beginning_at(place: int) -> Row:
        return Renderer(row.template, tokenizer).rows(replace(row.example, messages=(*system, *said[place:])))[-1]

    at = bisect_left(users, True, 1, key=lambda place: _lengths([beginning_at(place)], tokenizer)[0] <= max_length)
    return row if at == len(users) else beginning_at(users[at])


def _lengths(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of each row with the longer of its answers."""
    answers = [row.completion if row.rejected is None else max(row.completion, row.rejected, key=len) for row in rows]
    pairs = [(row.prompt, answer) for row, answer in zip(rows, answers, strict=True)]
    return [len(whole) for whole, _ in tokens.encode_rows(tokenizer, pairs)]


def by_length(rows: Sequence[Encoded]) -> list[Encoded]:
    """The rows from the shortest to the longest, so that batches of them need little padding."""
    return sorted(rows, key=lambda row: len(row.input_ids))


def warn(fitting: Fitting, name: str) -> None:
    """Log how many rows are shortened, and how many left out, by reason; ``name`` says what they are for."""
    if fitting.shortened:
        log.warning("%d %s rows begin later: their oldest turns are left out", fitting.shortened, name)
    for reason, count in Counter(each.reason for each in fitting.left_out).items():
        first = next(each.item for each in fitting.left_out if each.reason == reason)
        log.warning("%d %s rows are left out, the first is %s: %s", count, name, first, reason)
