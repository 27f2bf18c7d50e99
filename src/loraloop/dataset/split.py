"""Which examples are held out: groups of near-identical ones stay together, every task gets its share."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from loraloop.core import messages
from loraloop.dataset.similarity import near_duplicates, normalise
from loraloop.errors import DataError
from loraloop.records import Example

_MANY = 32
_WAYS = 4


def rank(example: Example, seed: int) -> bytes:
    """A place in an order that ``seed`` shuffles; it depends on what the example says, not on its neighbours."""
    worse = None if example.rejected is None else example.rejected.text
    said = [example.task, example.instruction, example.input, example.output, worse]
    if not example.is_one_turn:
        said += [orjson.dumps([messages.write(each) for each in example.messages]).decode()]
    return hashlib.blake2b(orjson.dumps(said), key=str(seed).encode(), digest_size=16).digest()


def hold_out(examples: Sequence[Example], share: float, seed: int) -> frozenset[int]:
    """Positions of the examples that form the validation side.

    Groups (see :func:`group`) go to the validation side whole, in an order that ``seed`` shuffles, first as long as
    their tasks want more of them (``share`` of each task, at least one group of a task that has two), then whatever
    still fits. The size therefore misses ``share`` by less than the smallest group that is left. A group larger than
    a tenth of the validation side comes last, so that one of many duplicates rather ends in the training side than
    takes the place of all others; a task whose examples are all one group is on one side only. The side of an example
    does not depend on the order of ``examples``.

    Args:
        examples: What to split.
        share: Part to hold out, in 0..1.
        seed: Seed of the order in which groups are taken.

    Raises:
        DataError: There are fewer than two groups, so nothing can be held out.
    """
    groups = group(examples)
    if len(groups) < 2:
        raise DataError(
            f"{len(examples)} examples form {len(groups)} group of near-identical inputs, and at least 2 are needed to "
            "hold one out: collect examples with different inputs"
        )
    target = min(max(round(share * len(examples)), 1), len(examples) - 1)
    queue = sorted((_Group.of(rows, examples, seed) for rows in groups), key=lambda g: (g.size > target / 10, g.rank))
    taken = _take(queue, _wanted(queue, share), target)
    return frozenset(row for group in taken for row in group.rows)


def group(examples: Sequence[Example]) -> list[list[int]]:
    """Positions of the examples, in groups that must not be torn apart.

    Examples belong together when they have one ``origin``; when their inputs (their instructions, where there is no
    input) are equal after NFKC and case folding without white space and punctuation; when a learned turn of theirs has
    one past, compared so turn by turn; and when their inputs are texts of at least 20 different words with a Jaccard
    similarity of at least 0.8.

    A past that more than half of a task's conversations share, and that goes on in more than four ways, is an opening
    such as a greeting: it joins nothing. Nor does the last rule hold for templates, such as one sentence with other
    figures each time: where it would join more than 32 groups of the other rules, and these are more than half of a
    task, only the other rules hold.
    """
    asked = [example.input or example.instruction or example.output for example in examples]
    keys = [normalise(text) or text for text in asked]
    origins = [("origin", example.origin) if example.origin else None for example in examples]
    tasks = [example.task for example in examples]
    sure = _Forest(len(examples))
    for same in (*_places(keys), *_places(origins)):
        sure.join(same)
    _join_pasts(sure, examples, tasks)
    texts = {text: place for place, text in reversed(list(enumerate(asked)))}
    ordered = sorted(texts)
    near = sure.copy()
    for a, b in near_duplicates(ordered):
        near.join([texts[ordered[a]], texts[ordered[b]]])
    return list(_kept(near, sure, tasks))


def _join_pasts(forest: _Forest, examples: Sequence[Example], tasks: Sequence[str]) -> None:
    """Join the examples that say equal things before a learned turn, unless that is an opening of most of a task.

    The longest pasts come first: a conversation that is told up to ever later turns is then one way to go on.
    """
    totals = Counter(tasks)
    by_length: dict[int, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, example in enumerate(examples):
        for length, key in _pasts(example):
            by_length[length][key].append(row)
    for length in sorted(by_length, reverse=True):
        shared = [rows for rows in by_length[length].values() if len(rows) > 1]
        opening = [_is_most(rows, forest, tasks, totals, _WAYS) for rows in shared]
        for rows, passed_over in zip(shared, opening, strict=True):
            if not passed_over:
                forest.join(rows)


def _pasts(example: Example) -> Iterator[tuple[int, bytes]]:
    """The number of turns before each learned one and a hash of them; what the system says is left out.

    A first question counts without its instruction, as everywhere in the split, and an empty past is none.
    """
    length, key = 0, b""
    for message in example.messages:
        if message.is_target and length:
            yield length, key
        two = not length and message.role == "user" and len(message.parts) == 2
        text = (message.parts[1] or message.parts[0]) if two else message.text
        if message.role != "system" and (text or message.tool_calls):
            calls = [[call.name, dict(call.arguments)] for call in message.tool_calls]
            said = json.dumps([message.role, normalise(text) or text, calls], sort_keys=True)
            length, key = length + 1, hashlib.blake2b(key + said.encode(), digest_size=16).digest()


def _is_most(
    rows: Sequence[int], forest: _Forest, tasks: Sequence[str], totals: Mapping[str, int], most_parts: int
) -> bool:
    """Whether ``rows`` are of more than ``most_parts`` groups and more than half of a task."""
    many = len({forest.root(row) for row in rows}) > most_parts
    return many and any(count > totals[task] / 2 for task, count in Counter(tasks[row] for row in rows).items())


def _kept(near: _Forest, sure: _Forest, tasks: Sequence[str]) -> Iterator[list[int]]:
    totals = Counter(tasks)
    for rows in near.trees():
        parts = _places([sure.root(row) for row in rows])
        template = _is_most(rows, sure, tasks, totals, _MANY)
        yield from ([rows[place] for place in part] for part in parts) if template else [rows]


def _places(keys: Iterable[Hashable]) -> list[list[int]]:
    """Positions of equal keys, ``None`` left out."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key is not None:
            places[key].append(place)
    return list(places.values())


class _Forest:
    """Disjoint sets of 0..n-1 (union by the smaller root, path halving)."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def copy(self) -> _Forest:
        other = _Forest(0)
        other._parents = self._parents.copy()
        return other

    def root(self, item: int) -> int:
        parents = self._parents
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    def join(self, items: Sequence[int]) -> None:
        for item in items[1:]:
            low, high = sorted((self.root(items[0]), self.root(item)))
            self._parents[high] = low

    def trees(self) -> list[list[int]]:
        return _places(map(self.root, range(len(self._parents))))


@dataclass(frozen=True, slots=True)
class _Group:
    rows: tuple[int, ...]
    tasks: Counter[str]
    rank: bytes

    @property
    def size(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, rows: Sequence[int], examples: Sequence[Example], seed: int) -> _Group:
        # Named by its least member, ranked by the name's hash: the least of many ranks would put large groups first.
        name = min(rank(examples[row], 0) for row in rows)
        ranked = hashlib.blake2b(name, key=str(seed).encode(), digest_size=16).digest()
        return cls(tuple(rows), Counter(examples[row].task for row in rows), ranked)


def _wanted(groups: Sequence[_Group], share: float) -> Counter[str]:
    counts: dict[str, list[int]] = defaultdict(list)
    for group in groups:
        for task, count in group.tasks.items():
            counts[task].append(count)
    least = {task: min(sizes) if len(sizes) > 1 else 0 for task, sizes in counts.items()}
    return Counter({task: max(round(share * sum(sizes)), least[task]) for task, sizes in counts.items()})


def _take(queue: Sequence[_Group], wanted: Counter[str], target: int) -> list[_Group]:
    taken: list[_Group] = []
    left = target

    def take(fits: Callable[[_Group], bool]) -> list[_Group]:
        nonlocal left
        passed = []
        for group in rest:
            if group.size <= left and fits(group):
                taken.append(group)
                wanted.subtract(group.tasks)
                left -= group.size
            else:
                passed.append(group)
        return passed

    rest = list(queue)
    rest = take(lambda group: all(count <= wanted[task] for task, count in group.tasks.items()))
    rest = take(lambda group: True)
    smallest = min(rest, key=lambda group: group.size)
    if not taken or (len(rest) > 1 and smallest.size - left < left):
        taken.append(smallest)
    return taken
