"""The issues that a rating may name: words for programs, with the labels that people read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from loraloop.core.session_file import ISSUES, issue_word
from loraloop.core.suggest import nearest

WORD = re.compile(r"\w[\w.-]{0,99}")
LONGEST_LABEL = 200
"""Characters."""
MOST = 30
"""Issues of a form."""


def labelled(given: Any) -> dict[str, str]:
    """The label of each issue, by its word.

    Args:
        given: A list of words, a map of words to labels, or a list that holds both; ``None`` is
            :data:`loraloop.core.session_file.ISSUES`. A word without a label gets one:
            ``wrong_queue`` is "Wrong queue".

    Raises:
        ValueError: It is none of these, or a word or label cannot be one.
    """
    if given is None:
        return dict(ISSUES)
    found: dict[str, str] = {}
    for word, label in _pairs(given):
        if not isinstance(word, str) or not WORD.fullmatch(word):
            raise ValueError(f"{word!r} is no word of letters, digits, _, . and -; its label is written word: label")
        if issue_word(word) != word:
            raise ValueError(f"{word!r} is read as {issue_word(word)} in session files; write {issue_word(word)}")
        if word in found:
            raise ValueError(f"{word} is there twice")
        text = ISSUES.get(word, word.replace("_", " ").capitalize()) if label is None else label
        if not isinstance(text, str) or not 0 < len(text.strip()) <= LONGEST_LABEL:
            raise ValueError(f"the label of {word} is a text of 1 to {LONGEST_LABEL} characters, not {text!r}")
        found[word] = text.strip()
    if len(found) > MOST:
        raise ValueError(f"{len(found)} issues, and a form has at most {MOST}")
    return found


def _pairs(given: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(given, Mapping):
        return list(given.items())
    if isinstance(given, (list, tuple)):
        return [pair for each in given for pair in (each.items() if isinstance(each, Mapping) else [(each, None)])]
    raise ValueError("write a list of words, such as [wrong_queue,too_slow], or a map of words to labels")


def unknown(word: object, issues: Mapping[str, str]) -> str:
    """What is wrong with a word that is none of the issues, and which there are."""
    return f"no such issue{nearest(str(word), issues)}; feedback.issues has {', '.join(issues) or 'none'}"
