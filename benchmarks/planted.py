"""Pages with secrets planted in them, and what a recogniser's mistakes make of them: seeded, nothing of it is real.

``TUNING`` and ``HELD_OUT`` differ in labels, layouts, issuers and countries: rules are tuned on the one and judged on
the other.
"""

import base64
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

ALIKE = ("0OoQ", "1lI|", "2Zz", "5Ss", "6G", "8B", "9g")
ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
URL = ALNUM + "-_"
WORDS = (
    "harbor", "lantern", "meadow", "orchard", "pioneer", "granite", "falcon", "ember", "delta", "cedar", "beacon",
    "acorn", "island", "juniper", "copper", "violet", "marble", "thunder", "silver", "window", "garden", "river",
    "castle", "bottle", "ladder", "mirror", "pepper", "rocket", "saddle",
)  # fmt: skip
Issuers = dict[str, tuple[tuple[str, int], ...]]


@dataclass(frozen=True)
class Page:
    """A secret of a kind, and the text around it."""

    kind: str
    before: str
    secret: str
    after: str

    @property
    def text(self) -> str:
        """The whole page."""
        return self.before + self.secret + self.after

    def covered(self, spans: Iterable[tuple[int, int]]) -> float:
        """Share of the secret that lies within ``spans`` of the text, line breaks in it aside."""
        start, end = len(self.before), len(self.before) + len(self.secret)
        inside = {place for first, last in spans for place in range(max(first, start), min(last, end))}
        marks = [place for place in range(start, end) if not self.text[place].isspace()]
        return sum(place in inside for place in marks) / len(marks)


def take(rng: Generator, alphabet: str, count: int) -> str:
    return "".join(alphabet[int(place)] for place in rng.integers(len(alphabet), size=count))


def pick(rng: Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def issued(rng: Generator, issuers: Issuers) -> str:
    prefix = pick(rng, list(issuers))
    return prefix + "-".join(take(rng, alphabet, length) for alphabet, length in issuers[prefix])


def token(rng: Generator) -> str:
    parts = [b'{"alg":"HS256","typ":"JWT"}', f'{{"sub":"{rng.integers(10**9)}","iat":1700000000}}'.encode()]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), take(rng, URL, 43)])


def armoured(rng: Generator, label: str, lines: int) -> str:
    body = "\n".join(take(rng, ALNUM + "+/", 64) for _ in range(lines))
    return f"-----BEGIN {label}-----\n{body}\n{take(rng, ALNUM, 38)}==\n-----END {label}-----"


def password(rng: Generator) -> str:
    made = pick(rng, WORDS) + take(rng, string.digits, int(rng.integers(1, 5)))
    mixed = take(rng, ALNUM + "!@#$%&*", int(rng.integers(8, 17)))
    return pick(
        rng, (made.capitalize() + pick(rng, ("!", "#", "?", "$")), made, mixed, pick(rng, WORDS) + pick(rng, WORDS))
    )


def luhn(figures: str) -> str:
    total = sum(value - 9 * (value > 9) for value in (int(f) * (2 - k % 2) for k, f in enumerate(reversed(figures))))
    return figures + str(-total % 10)


def card(rng: Generator, starts: tuple[str, ...], between: str) -> str:
    start = pick(rng, starts)
    short = start[:2] in ("34", "37")
    number = luhn(start + take(rng, string.digits, (14 if short else 15) - len(start)))
    groups = (number[:4], number[4:10], number[10:]) if short else (number[k : k + 4] for k in range(0, 16, 4))
    return between.join(groups)


def iban(rng: Generator, forms: dict[str, str], between: str) -> str:
    country = pick(rng, list(forms))
    alphabets = {"n": string.digits, "a": string.ascii_uppercase, "c": UPPER}
    account = "".join(take(rng, alphabets[kind], 1) for kind in forms[country])
    number = int("".join(str(int(mark, 36)) for mark in f"{account}{country}00"))
    whole = f"{country}{98 - number % 97:02d}{account}"
    return between.join(whole[k : k + 4] for k in range(0, len(whole), 4))


@dataclass(frozen=True)
class Split:
    """What differs between the pages that rules are tuned on and those that judge them."""

    issuers: Issuers
    armours: tuple[str, ...]
    password_labels: tuple[str, ...]
    key_labels: tuple[str, ...]
    cards: tuple[str, ...]
    card_labels: tuple[str, ...]
    ibans: dict[str, str]
    iban_labels: tuple[str, ...]
    around: tuple[tuple[str, str], ...]


TUNING = Split(
    issuers={
        "AKIA": ((string.ascii_uppercase + "234567", 16),),
        "ghp_": ((ALNUM, 36),),
        "sk_live_": ((ALNUM, 24),),
        "sk-": ((ALNUM, 48),),
        "xoxb-": ((string.digits, 11), (string.digits, 12), (ALNUM, 24)),
        "AIza": ((URL, 35),),
    },
    armours=("RSA PRIVATE KEY", "PRIVATE KEY"),
    password_labels=("Password: ", "password = ", "pwd: ", "Passwd:", "WiFi password: "),
    key_labels=("API key: ", "api_key=", "client_secret: ", "token: "),
    cards=("4", "51", "55"),
    card_labels=("Card ", "Card number: ", "Visa "),
    ibans={"DE": "n" * 18, "GB": "aaaa" + "n" * 14, "NL": "aaaa" + "n" * 10, "ES": "n" * 20},
    iban_labels=("IBAN ", "IBAN: ", "Account "),
    around=(
        ("Server settings\nHost: db01.example.org\n", "\nPort: 5432\nRegion: eu-west"),
        ("Invoice 2026-118\nThank you for your order.\n", "\nDue within 14 days."),
        ("Notes from Tuesday\n- call the plumber\n", "\n- water the plants"),
    ),
)
HELD_OUT = Split(
    issuers={
        "ASIA": ((string.ascii_uppercase + "234567", 16),),
        "glpat-": ((URL, 20),),
        "npm_": ((ALNUM, 36),),
        "hf_": ((string.ascii_letters, 34),),
        "rk_live_": ((ALNUM, 24),),
        "gho_": ((ALNUM, 36),),
        "dop_v1_": ((HEX, 64),),
        "acme_": ((ALNUM, 40),),
    },
    armours=("EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
    password_labels=("Passwort: ", "admin password:", "PASSWORD: ", "Passphrase = ", "router pwd = ", "Password : "),
    key_labels=("Secret key: ", "ACCESS_KEY = ", "auth token: ", "apikey:", "Webhook secret: "),
    cards=("4", "2221", "37", "6011", "54"),
    card_labels=("Pay with ", "No. ", "Mastercard: ", "Amex "),
    ibans={"FR": "n" * 10 + "c" * 11 + "nn", "IT": "a" + "n" * 10 + "c" * 12, "CH": "n" * 5 + "c" * 12, "AT": "n" * 16,
           "PL": "n" * 24, "IE": "aaaa" + "n" * 14},
    iban_labels=("Please transfer to ", "Bank: ", "IBAN\n"),
    around=(
        ("Staff only\nThe alarm is armed at 22:00.\n", "\nAsk the desk if the door is stuck."),
        ("Ticket 48213, opened by the night shift\nSteps to reproduce:\n", "\nExpected: the page loads within 2 s."),
        ("Meeting room 4B\n", "\nCapacity 12, projector on the left wall"),
        ("Release 3.14.2\nFixed a crash on start.\n", "\nSee the manual, chapter 7."),
    ),
)  # fmt: skip


def planted(split: Split, seed: int, each: int) -> list[Page]:
    """``each`` pages of every kind."""
    rng = np.random.default_rng(seed)
    makers: dict[str, Callable[[], tuple[str, str]]] = {
        "API key": lambda: (pick(rng, ("", "key ", "use ", "export KEY=")), issued(rng, split.issuers)),
        "labelled key": lambda: (
            pick(rng, split.key_labels),
            take(rng, pick(rng, (ALNUM, HEX)), int(rng.integers(20, 41))),
        ),
        "JSON web token": lambda: (pick(rng, ("Authorization: Bearer ", "session ", "")), token(rng)),
        "private key": lambda: ("", armoured(rng, pick(rng, split.armours), int(rng.integers(2, 7)))),
        "password": lambda: (pick(rng, split.password_labels), password(rng)),
        "card number": lambda: (pick(rng, split.card_labels), card(rng, split.cards, pick(rng, (" ", "", "-")))),
        "IBAN": lambda: (pick(rng, split.iban_labels), iban(rng, split.ibans, pick(rng, (" ", "")))),
    }
    pages = []
    for kind, make in makers.items():
        for _ in range(each):
            label, secret = make()
            before, after = split.around[int(rng.integers(len(split.around)))]
            pages.append(Page(kind, before + label, secret, after))
    return pages


def receipt(rng: Generator) -> str:
    """An ordinary page full of numbers: dates, prices, telephones, articles, serial and tracking numbers."""

    def number(count: int, start: str = "") -> str:
        return start + take(rng, string.digits, count - len(start))

    lines = [
        f"Order {number(10)} of 2026-0{rng.integers(1, 10)}-1{rng.integers(10)} at {rng.integers(24)}:{number(2)}",
        f"Tel. +49 {number(3)} {number(4)} {number(4)}, fax {number(3)}-{number(3)}-{number(4)}",
        *(
            f"{number(13, pick(rng, ('4', '978', '50')))}  {pick(rng, WORDS)}  {number(2)}.{number(2)}"
            for _ in range(4)
        ),
        f"Serial {take(rng, UPPER, 12)}  IMEI {luhn(number(14, '35'))}",
        f"Tracking {number(4, '9')} {number(4)} {number(4)} {number(4)} {number(4)} {number(2)}",
        f"Customer {number(8)} Tax {pick(rng, ('DE', 'ATU', 'GB'))}{number(9)}",
        f"Total {number(3)}.{number(2)} EUR",
    ]
    return "\n".join(lines)


def misread(page: Page, rng: Generator, swaps: float = 0.15) -> Page:
    """``page`` as a poor recognition: a share of the look-alikes swapped, spaces lost, lines broken."""
    parts = (recognised(part, rng, swaps) for part in (page.before, page.secret, page.after))
    return Page(page.kind, *parts)


def recognised(text: str, rng: Generator, swaps: float = 0.15) -> str:
    groups = {mark: tuple(group.replace(mark, "")) for group in ALIKE for mark in group}
    marks = [pick(rng, groups[mark]) if mark in groups and rng.random() < swaps else mark for mark in text]
    for place, mark in enumerate(marks):
        if mark == " ":
            marks[place] = pick(rng, ("", "\n")) if rng.random() < 0.15 else " "
        elif mark.isalnum() and rng.random() < 0.004:
            marks[place] = mark + pick(rng, (" ", "\n"))
    return "".join(marks)
