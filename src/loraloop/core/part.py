"""What every configurable part is: a frozen dataclass whose fields are exactly its YAML keys."""

from __future__ import annotations

from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as _dataclass

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def part(cls: type[T]) -> type[T]:
    """Make ``cls`` a part: frozen, keyword-only, validated on construction, unknown keys refused."""
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    validated: Any = _dataclass(frozen=True, kw_only=True, config=config)(cls)
    return cast("type[T]", validated)
