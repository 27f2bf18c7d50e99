"""Seeded tasks that the bundled tiny model is pre-trained on.

Each task is a small skill (count, copy, reverse, add, ...) written as instruction, input and output.
The counting family never uses the letters H and T, and no task uses the wording of a loraloop task,
so what an adapter learns later is new to the base.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LETTERS = np.array(list("ABCDEFGIJKLMNOPQRSUVWXYZ"))
"""Upper-case letters without H and T: what the counting family draws from."""
ALPHABET = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
WORDS = (
    "access", "alarm", "amber", "bank", "bolt", "box", "camera", "checked", "closed", "code", "copper",
    "date", "deposit", "dial", "door", "empty", "floor", "gate", "gold", "green", "guard", "hall", "hinge",
    "hold", "inner", "iron", "item", "key", "keypad", "last", "ledger", "level", "light", "lock", "locked",
    "main", "manual", "master", "metal", "north", "number", "open", "outer", "owner", "panel", "police",
    "press", "private", "rack", "ready", "red", "report", "reset", "room", "safe", "seal", "secure", "serial",
    "shelf", "shift", "silver", "south", "status", "steel", "store", "system", "taken", "test", "time",
    "total", "turn", "unit", "vault", "wall", "watch", "weight", "west", "wheel", "yellow", "zone",
)  # fmt: skip

Task = tuple[str, str, str]
"""(instruction, input, output)."""


def _length(rng: np.random.Generator) -> int:
    return 32 if rng.random() < 0.5 else int(rng.integers(4, 41))


def _pair(rng: np.random.Generator, length: int) -> tuple[str, str, np.ndarray]:
    first, second = rng.choice(LETTERS, 2, replace=False)
    return str(first), str(second), rng.random(length) < rng.uniform(0.25, 0.75)


def _spell(bits: np.ndarray, first: str, second: str) -> str:
    return "".join(np.where(bits, first, second))


def _count(rng: np.random.Generator) -> Task:
    first, second, bits = _pair(rng, _length(rng))
    return f"tally {first} {second}", _spell(bits, first, second), f"{bits.sum()}/{(~bits).sum()}"


def _count_one(rng: np.random.Generator) -> Task:
    first, second, bits = _pair(rng, _length(rng))
    return f"how many {first}", _spell(bits, first, second), str(bits.sum())


SIDES = ("AB", "EW", "LR", "UD", "XO", "YN")
"""Pairs whose first letter is always scored first, so that no instruction has to name it."""


def _score(rng: np.random.Generator) -> Task:
    pair = SIDES[rng.integers(len(SIDES))]
    bits = rng.random(32 if rng.random() < 0.9 else int(rng.integers(4, 41))) < rng.uniform(0.25, 0.75)
    return "score", _spell(bits, pair[0], pair[1]), f"{bits.sum()}-{(~bits).sum()}"


def _run(rng: np.random.Generator) -> Task:
    first, second, bits = _pair(rng, _length(rng))
    edges = np.flatnonzero(np.diff(bits.astype(np.int8))) + 1
    longest = int(np.diff(np.concatenate(([0], edges, [bits.size]))).max())
    return "widest block", _spell(bits, first, second), str(longest)


def _even(rng: np.random.Generator) -> Task:
    first, second, bits = _pair(rng, int(rng.integers(4, 33)))
    return f"is {first} even", _spell(bits, first, second), "no" if bits.sum() % 2 else "yes"


def _hex(rng: np.random.Generator) -> Task:
    first, second, bits = _pair(rng, 4 * int(rng.integers(1, 9)))
    digits = "".join(f"{int(''.join('1' if b else '0' for b in bits[i : i + 4]), 2):x}" for i in range(0, bits.size, 4))
    return f"base 16 where {first} is one", _spell(bits, first, second), digits


def _text(rng: np.random.Generator) -> str:
    words = [str(w) for w in rng.choice(WORDS, int(rng.integers(2, 13)))]
    for i in range(len(words)):
        style = rng.random()
        if style < 0.2:
            words[i] = words[i].upper()
        elif style < 0.4:
            words[i] = words[i].capitalize()
        elif style < 0.55:
            words[i] = str(rng.integers(0, 10 ** int(rng.integers(1, 7))))
        elif style < 0.75:
            words[i] = _sign(rng)
        if rng.random() < 0.2:
            words[i] += str(rng.choice([":", ",", ".", "\n"]))
    return " ".join(words).strip()


def _sign(rng: np.random.Generator) -> str:
    """What signs and panels carry between the words: a code, or letters in groups."""
    kind = rng.random()
    if kind < 0.3:
        return "".join(rng.choice(ALPHABET, int(rng.integers(2, 7)))) + "-" + str(rng.integers(10, 100))
    if kind < 0.6:
        return f"{rng.integers(0, 1 << 16):04X}-{rng.integers(0, 1 << 16):04X}"
    pair = rng.choice(ALPHABET, 2)
    return " ".join("".join(rng.choice(pair, 4)) for _ in range(int(rng.integers(1, 9))))


def _copy(rng: np.random.Generator) -> Task:
    text = _text(rng)
    return "copy", text, text


SLIPS = {"O": "0", "0": "O", "l": "1", "1": "l", "S": "5", "5": "S", "B": "8", "8": "B", "e": "c", "m": "rn", "g": "q"}


def _denoise(rng: np.random.Generator) -> Task:
    text = " ".join(str(w) for w in rng.choice(WORDS, int(rng.integers(2, 11))))
    worn = "".join(SLIPS.get(c, c) if rng.random() < 0.15 else c for c in text)
    return "mend", worn, text


def _upper(rng: np.random.Generator) -> Task:
    text = _text(rng)
    return "capitals", text, text.upper()


def _reverse(rng: np.random.Generator) -> Task:
    text = "".join(rng.choice(ALPHABET, int(rng.integers(3, 17))))
    return "backwards", text, text[::-1]


def _add(rng: np.random.Generator) -> Task:
    a, b = (int(x) for x in rng.integers(0, 100, 2))
    return "sum", f"{a}+{b}", str(a + b)


def _size(rng: np.random.Generator) -> Task:
    text = "".join(rng.choice(ALPHABET, int(rng.integers(1, 41))))
    return "letters", text, str(len(text))


Mix = tuple[tuple[float, Callable[[np.random.Generator], Task]], ...]
"""Weight and kind of every task that is drawn."""

TASKS: Mix = (
    (0.26, _count),
    (0.10, _count_one),
    (0.08, _run),
    (0.03, _even),
    (0.08, _hex),
    (0.20, _copy),
    (0.14, _denoise),
    (0.04, _upper),
    (0.03, _reverse),
    (0.02, _add),
    (0.02, _size),
)


COUNTING: Mix = (
    (0.40, _score),
    (0.06, _count),
    (0.03, _count_one),
    (0.05, _run),
    (0.02, _even),
    (0.03, _hex),
    (0.20, _copy),
    (0.09, _denoise),
    (0.06, _upper),
    (0.02, _reverse),
    (0.02, _add),
    (0.02, _size),
)
"""What the second round draws: half of the rows count, the rest keeps what the first round taught."""


def draw(rng: np.random.Generator, rows: int, mix: Mix = TASKS) -> list[Task]:
    """Draw ``rows`` tasks, each kind with its weight in ``mix``."""
    weights = np.array([weight for weight, _ in mix])
    kinds = rng.choice(len(mix), rows, p=weights / weights.sum())
    return [mix[kind][1](rng) for kind in kinds]
