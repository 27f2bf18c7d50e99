"""Between Hydra's override grammar and the search space of ``loraloop.sweep``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException

from loraloop.core.suggest import first_line
from loraloop.errors import ConfigError
from loraloop.sweep.space import Choice, Dimension, Numbers


@dataclass(frozen=True)
class ParsedOverrides:
    """What the overrides say.

    Attributes:
        space: What is searched, by key.
        fixed: The overrides that every trial gets, as they were written.
        settings: The value of each of these that has one.
    """

    space: dict[str, Dimension] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)


def read(lines: Iterable[str], loader: ConfigLoader) -> ParsedOverrides:
    """Read overrides; of two for one key the later counts.

    Raises:
        ConfigError: An override that cannot be read or that searches nothing.
    """
    parser = OverridesParser.create()
    latest: dict[str, Override] = {}
    problems = []
    for line in lines:
        try:
            override = parser.parse_override(line)
            override.config_loader = loader  # for glob
            latest[f"{override.key_or_group}@{override.package}"] = override
        except HydraException as error:
            problems.append(f"{line}: {first_line(error)}")
    asked = ParsedOverrides()
    for override in latest.values():
        try:
            _sort_in(override, asked)
        except ValueError as error:
            problems.append(f"{override.input_line}: {error}")
    if problems:
        raise ConfigError(*problems)
    return asked


def written(value: Any) -> str:
    """A value as an override is to have it: read back, it is the same value of the same type."""
    text = str(Override._get_value_element_as_str(value))
    if isinstance(value, str) and not (text and _reads_back(text, value)):
        return QuotedString(text=value, quote=Quote.single).with_quotes()
    return text


def _reads_back(text: str, value: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_override(f"key={text}").value() == value)
    except HydraException:
        return False


def _sort_in(override: Override, asked: ParsedOverrides) -> None:
    key = override.get_key_element()
    if override.is_sweep_override():
        asked.space[key] = _dimension(override)
        return
    asked.fixed.append(str(override.input_line))
    if not override.is_delete():
        asked.settings[key] = override.get_value_element_as_str()


def _dimension(override: Override) -> Dimension:
    swept: Any = override.value()
    if isinstance(swept, IntervalSweep):
        integer = isinstance(swept.start, int) and isinstance(swept.end, int)
        return _numbers(swept.start, swept.end, None, integer, swept.tags)
    if isinstance(swept, RangeSweep) and not swept.shuffle:
        # Hydra 1.4 keeps a cast beside the range instead of applying it: the values tell.
        integer = all(isinstance(value, int) for value in itertools.islice(override.sweep_iterator(), 2))
        return _numbers(swept.start, swept.stop, swept.step, integer, swept.tags)
    # A sampler has no use for an order, and a shuffled one would be another search space in the next sweep.
    if getattr(swept, "shuffle", False):
        swept.shuffle = False
    values = [_plain(value) for value in override.sweep_iterator()]
    return Choice(tuple(values), tuple(written(value) for value in override.sweep_iterator()))


def _numbers(low: Any, high: Any, step: Any, integer: bool, tags: set[str]) -> Numbers:
    return Numbers(low, high, step, "log" in tags, integer)


def _plain(value: Any) -> Any:
    # Optuna keeps scalars: a list is kept as the text that it is written as.
    return value if isinstance(value, (str, int, float, bool)) or value is None else written(value)
