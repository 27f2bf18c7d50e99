"""Pages that ``stage=read`` has written, one JSON row each, as pictures already read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from loraloop.core import tables
from loraloop.errors import ConfigError, DataError
from loraloop.records import Page, Quarantined
from loraloop.source.vault import pictures
from loraloop.source.vault.pictures import Picture

SUFFIX = ".jsonl"


def check(path: Path) -> None:
    """Look at the first row.

    Raises:
        ConfigError: There is no such file, or what is in it are not pages.
    """
    try:
        first = next(_rows(path), None)
    except DataError as error:
        raise ConfigError(f"source.path={path}: {error}") from error
    if isinstance(first, Page):
        return
    told = "it holds no rows" if first is None else first.reason
    raise ConfigError(
        f"source.path={path} does not hold the rows of loraloop stage=read ({told}): write them with "
        f"loraloop stage=read source.path=scans/ source.synthetic=0 output={path}, or name images"
    )


def read(path: Path, start: int) -> tuple[list[tuple[Picture, Page]], list[Quarantined]]:
    """The pages in ``path`` with their pictures, numbered from ``start``, and the rows that are none."""
    pages: list[tuple[Picture, Page]] = []
    aside: list[Quarantined] = []
    for index, row in enumerate(_rows(path), start):
        if isinstance(row, Quarantined):
            aside.append(row)
            continue
        try:
            pages.append((Picture(Path(row.image), index, pictures.sidecar(Path(row.image))), row))
        except DataError as error:
            aside.append(Quarantined(row.image, str(error)))
    return pages, aside


def _rows(path: Path) -> Iterator[Page | Quarantined]:
    bad: list[Quarantined] = []
    for row in tables.read(path, lambda line, reason: bad.append(Quarantined(f"{path}:{line}", reason))):
        yield from bad
        bad.clear()
        yield _page(row)
    yield from bad


def _page(row: dict[str, Any]) -> Page | Quarantined:
    from pydantic import ValidationError

    words = row.get("words")
    if isinstance(words, list):
        named = [word | {"confidence": word.get("conf")} for word in words if isinstance(word, dict)]
        row = row | {"words": named}
    try:
        page: Page = _shape().validate_python(row)
        return page
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        return Quarantined(str(row.get("image", "a row")), f"no page: {where}: {str(fault['msg']).lower()}")


@cache
def _shape() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Page)
