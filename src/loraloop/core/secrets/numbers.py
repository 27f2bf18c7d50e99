"""Card numbers and IBANs: long numbers that their check digits prove."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate, islice, product

from loraloop.core.secrets.confusables import DIGITS, LETTERS, loose

Span = tuple[int, int]

_FIGURE = r"[0-9OoQDlI|i!ZzSs$GbBgqAT]"
_CARD = re.compile(rf"(?<!\d){_FIGURE}(?:[\s\-.]{{0,2}}{_FIGURE}){{13,18}}(?!\d)")
_CARDS = (
    "4(.{15}|.{18})",
    "5[1-5].{14}",
    "2[2-7].{14}",
    "3[47].{13}",
    "3[068].{12}",
    "35.{14}",
    "6(011|4.{2}|5.{2}).{12}",
)
_ISSUED = re.compile("|".join(_CARDS))
"""Beginning and length: Visa, Mastercard (two ranges), American Express, Diners Club, JCB, Discover."""

_USUAL_BREAKS = ({4, 8, 12, 16}, {4, 10})  # 4-4-4-4 and 4-6-5
_BETWEEN = r"[\s\-.]+"
_BEFORE = re.compile(r"(?:\d[.,]|(?<!\d)\d{4}[ \-])$")
_AFTER = re.compile(r"[ \-]\d{4}(?!\d)|[.,]\d")
_CARD_FIGURES = 0.5  # share of the characters that must have been read as figures: words are no numbers
_IBAN_FIGURES = 0.35

IBANS = {
    "AD": "8n12c", "AE": "19n", "AT": "16n", "BE": "12n", "BG": "4a6n8c", "CH": "5n12c", "CY": "8n16c", "CZ": "20n",
    "DE": "18n", "DK": "14n", "EE": "16n", "ES": "20n", "FI": "14n", "FR": "10n11c2n", "GB": "4a14n", "GR": "7n16c",
    "HR": "17n", "HU": "24n", "IE": "4a14n", "IL": "19n", "IS": "22n", "IT": "1a10n12c", "LI": "5n12c", "LT": "16n",
    "LU": "3n13c", "LV": "4a13c", "MC": "10n11c2n", "MT": "4a5n18c", "NL": "4a10n", "NO": "11n", "PL": "24n",
    "PT": "21n", "RO": "4a16c", "RS": "18n", "SA": "2n18c", "SE": "20n", "SI": "15n", "SK": "20n", "SM": "1a10n12c",
    "TR": "6n16c", "UA": "6n19c",
}  # fmt: skip
"""After country and check digits, by the SWIFT registry: n is a figure, a a capital letter, c either."""

_IBAN = re.compile(r"(?=((?:(?<![A-Za-z0-9])[A-Za-z0-9|!$]{2}|[A-Z]{2})(?:[\s\-.]{0,2}[A-Za-z0-9|!$]){13,32}))")
_ACCOUNT = re.compile(rf"(?:{loose('IBAN')}|{loose('account')}|{loose('konto')}|{loose('bank')})[^\w]*$", re.IGNORECASE)
_MOST_DOUBTS = 8  # places of kind c that may be figure or letter; each doubles the tries


def cards(text: str) -> Iterator[Span]:
    """Payment cards: 14 to 19 figures of a known issuer with a valid check digit (ISO/IEC 7812-1, annex B)."""
    for match in _CARD.finditer(text):
        for first, last in _runs(match[0]):
            start, end = match.start() + first, match.start() + last
            if not _within_more(text, start, end) and _is_card(re.split(_BETWEEN, text[start:end])):
                yield start, end
                break


def _runs(found: str) -> Iterator[Span]:
    """The whole run, then shorter ones without its first or last groups, which may be a date or an amount."""
    groups = [match.span() for match in re.finditer(r"[^\s\-.]+", found)]
    yield from ((first[0], last[1]) for first, last in product(groups, reversed(groups)) if first <= last)


def _within_more(text: str, start: int, end: int) -> bool:
    """Whether the run is part of a word (``5`` for the ``S`` of ``See``), a longer number or a decimal fraction."""
    pairs = text[max(0, start - 1) : start + 1], text[end - 1 : end + 1]
    words = any(len(pair) == 2 and pair.isalpha() for pair in pairs)
    return words or bool(_BEFORE.search(text, max(0, start - 6), start) or _AFTER.match(text, end))


def _is_card(groups: list[str]) -> bool:
    read = "".join(groups)
    figures = read.translate(DIGITS)
    varied = sum(map(str.isdigit, read)) >= _CARD_FIGURES * len(read) and len(set(figures)) > 1
    return varied and _grouped(groups) and bool(_ISSUED.fullmatch(figures)) and _luhn(figures)


def _grouped(groups: list[str]) -> bool:
    """Whether the breaks are those of a card, some of them lost and at most one added."""
    breaks = set(accumulate(map(len, groups[:-1])))
    odd = min((breaks - usual for usual in _USUAL_BREAKS), key=len)
    alone = len(breaks) == 1 and odd
    return len(odd) <= 1 and not (alone and min(map(len, groups)) < 4)


def _luhn(figures: str) -> bool:
    doubled = [int(mark) * (1 + place % 2) for place, mark in enumerate(reversed(figures))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def ibans(text: str) -> Iterator[Span]:
    """Bank accounts: an IBAN of a known country, its check digits valid (ISO 13616, mod 97-10 of ISO/IEC 7064)."""
    for match in _IBAN.finditer(text):
        country = match[1][:2]
        form = IBANS.get(country.translate(LETTERS).upper())
        if form is None:  # decided first: nearly every word begins like a long number
            continue
        named = _ACCOUNT.search(text, max(0, match.start() - 24), match.start())
        if not (named or (country.isalpha() and country.isupper())):
            continue
        places = [place for place, mark in enumerate(match[1]) if not (mark.isspace() or mark in "-.")]
        read = "".join(match[1][place] for place in places)
        kinds = "".join(kind * int(count) for count, kind in re.findall(r"(\d+)(\w)", f"2a2n{form}"))
        if len(read) >= len(kinds) and _is_iban(read[: len(kinds)], kinds):
            yield match.start(), match.start() + places[len(kinds) - 1] + 1


def _is_iban(read: str, kinds: str) -> bool:
    if sum(mark.isdigit() for mark in read) < _IBAN_FIGURES * len(read):
        return False
    choices = [_choices(mark, kind) for mark, kind in zip(read, kinds, strict=True)]
    if not all(choices):
        return False
    doubts = sum(len(choice) > 1 for choice in choices)
    readings = islice(product(*choices), 1 if doubts > _MOST_DOUBTS else None)  # the first is the one that was read
    return any(_mod97(one) == 1 for one in readings)


def _choices(mark: str, kind: str) -> str:
    """What a character may stand for at a place of that kind."""
    figure, letter = mark.translate(DIGITS), mark.translate(LETTERS).upper()
    options = {"n": [figure], "a": [letter], "c": [mark.upper(), figure, letter]}[kind]
    fits = {"n": str.isdigit, "a": str.isalpha, "c": str.isalnum}[kind]
    return "".join(dict.fromkeys(one for one in options if fits(one) and one.isascii()))


def _mod97(marks: tuple[str, ...]) -> int:
    turned = "".join(marks[4:] + marks[:4])
    return int("".join(str(int(mark, 36)) for mark in turned)) % 97
