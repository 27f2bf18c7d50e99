"""Examples from any dataset on the Hugging Face Hub, or from a folder that ``datasets`` can load."""

from __future__ import annotations

import contextlib
import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from loraloop.core import tables, tables_json
from loraloop.core.part import part
from loraloop.core.progress import track
from loraloop.errors import ConfigError, DataError
from loraloop.protocols import Ocr
from loraloop.records import Collection, Example, Page, Provenance, Quarantined
from loraloop.source import columns as mapping
from loraloop.source.answers import same
from loraloop.source.columns import Columns
from loraloop.source.screening import Policy

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

CONNECT_SECONDS = 5
BATCH = 256
"""Rows held at once, and images handed to OCR at once."""

Row = Mapping[str, Any]


@part
class Hub:
    """A dataset by its id on the hub (``tatsu-lab/alpaca``) or by its folder; no code from the hub is ever run."""

    name: Annotated[str, Field(min_length=1)] | None = None
    config: str | None = None
    split: Annotated[str, Field(min_length=1)] = "train"
    revision: str | None = None
    columns: Columns = Columns()
    image: str | None = None
    instruction: str = ""
    limit: Annotated[int, Field(ge=1)] | None = None
    streaming: bool = False
    secrets: Policy = "warn"
    emails: bool = False

    @model_validator(mode="after")
    def _one_input(self) -> Hub:
        if self.image is not None and self.columns.input is not None:
            raise ValueError(
                f"image={self.image} and columns.input={self.columns.input} both fill the input: "
                "set columns.input=null to use what OCR reads in the image, or image=null"
            )
        return self

    def check(self) -> None:
        """Refuse a name that is neither set, nor a folder, nor formed like an id."""
        if self.name is None:
            raise ConfigError("source.name is not set: name a dataset, such as source.name=tatsu-lab/alpaca")
        if not Path(self.name).is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.name):
            raise ConfigError(
                f"source.name={self.name} is neither a folder that exists nor a dataset's id: "
                "write OWNER/NAME as on the hub, such as tatsu-lab/alpaca"
            )

    def collect(self, ocr: Ocr | None) -> Collection:
        """Load the split and map its rows in order; ``image`` makes what ``ocr`` reads in that column the input.

        Raises:
            ConfigError: ``name`` is not a dataset's name.
            DataError: The hub cannot be reached, there is no such dataset, configuration, split or column, or no row
                is usable.
        """
        self.check()
        quarantined: list[Quarantined] = []
        records = self._pages(self._opened(), ocr, quarantined) if self.image else self.records(quarantined)
        return mapping.collect(
            str(self.name),
            records,
            self.columns,
            self.instruction,
            quarantined,
            recognised=self.image is None,
        )

    def correct(self, example: Example, answer: str) -> bool:
        """The answer must equal the output but for case, white space and a full stop at the end."""
        return same(example.output, answer)

    def _opened(self) -> Dataset | IterableDataset:
        with self._explained():
            return self._load()

    def _load(self) -> Dataset | IterableDataset:
        import datasets

        folder = Path(str(self.name))
        if (folder / "state.json").is_file():
            saved = datasets.load_from_disk(folder)
            return self._pick({str(saved.split or "train"): saved})
        if (folder / "dataset_dict.json").is_file():
            return self._pick(datasets.load_from_disk(folder))
        if not folder.is_dir():
            _reach_hub(str(self.name))
        return datasets.load_dataset(
            self.name,
            self.config,
            split=self.split,
            revision=self.revision,
            streaming=self.streaming,
            **self._as_written(),
        )

    def _as_written(self) -> dict[str, Any]:
        """Options by which the cells of a CSV stay the texts that they are, such as ``007`` and ``None``."""
        import datasets
        from datasets.packaged_modules.csv.csv import CsvConfig

        builder = datasets.load_dataset_builder(self.name, self.config, revision=self.revision)
        if not isinstance(builder.config, CsvConfig):
            return {}
        first = next(iter(builder.as_streaming_dataset().values()))
        names = first.column_names or list(next(iter(first)))
        return {
            "features": datasets.Features({name: datasets.Value("string") for name in names}),
            "keep_default_na": False,
            "na_filter": False,
        }

    def _pick(self, splits: Mapping[str, Dataset]) -> Dataset:
        """The rows that ``split`` asks for, such as ``train[:10%]``, of what was saved to disk."""
        import datasets

        asked = re.split(r"[\[+]", self.split)[0]
        if asked not in splits:
            raise DataError(f"source.split={self.split}: {self.name} has no such split; it has {', '.join(splits)}")
        lengths = {name: len(rows) for name, rows in splits.items()}
        parts = [
            splits[part.splitname].select(range(part.from_, part.to))
            for part in datasets.ReadInstruction.from_spec(self.split).to_absolute(lengths)
        ]
        return datasets.concatenate_datasets(parts)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever goes wrong in the loader or on its way is a fact about the dataset, told with its name."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            asked = ", ".join(
                f"{key}={value}"
                for key in ("name", "config", "split", "revision")
                if (value := getattr(self, key)) is not None
            )
            raise DataError(f"cannot load the dataset ({asked}): {type(error).__name__}: {error}") from error

    def _rows(self, dataset: Dataset | IterableDataset) -> Iterator[Row]:
        size = min(BATCH, self.limit or BATCH)
        decode = _decoder(dataset.features or {})
        with self._explained():
            # Arrow hands images and sounds over as stored: nothing is decoded that no column asks for.
            for table in dataset.with_format("arrow").iter(batch_size=size):
                yield from map(decode, tables.shortest(table))

    def records(self, quarantined: list[Quarantined]) -> Iterator[mapping.Record]:
        """The rows of the split, without images; a dataset has none that cannot be parsed.

        Raises:
            DataError: As :meth:`collect`.
        """
        for index, row in enumerate(itertools.islice(self._rows(self._opened()), self.limit)):
            yield f"row {index}", row, Provenance(source="hub", index=index)

    def _pages(
        self, dataset: Dataset | IterableDataset, ocr: Ocr | None, quarantined: list[Quarantined]
    ) -> Iterator[mapping.Record]:
        if ocr is None:
            raise DataError(f"source.image={self.image} needs an OCR engine: choose one, such as ocr=tesseract_psm6")
        rows = enumerate(itertools.islice(self._rows(dataset), self.limit))
        pages = track(self._read(ocr, rows), "reading images", "page", self.limit)
        for index, row, page in pages:
            if page.status == "ok":
                yield f"row {index}", {**row, "input": page.text}, _seen(index, page)
            else:
                quarantined.append(Quarantined(f"row {index}", page.reason))

    def _read(self, ocr: Ocr, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row, Page]]:
        while batch := list(itertools.islice(rows, BATCH)):
            with tempfile.TemporaryDirectory(prefix="loraloop-") as folder:
                paths = [_store(Path(folder) / str(index), self._stored(row)) for index, row in batch]
                for (index, row), page in zip(batch, ocr.read(paths), strict=True):
                    yield index, row, page

    def _stored(self, row: Row) -> Mapping[str, Any]:
        """The image of a row as ``datasets`` stores it: ``bytes``, or the ``path`` of a file."""
        stored = row.get(str(self.image), "")
        if stored is None:
            return {"bytes": None, "path": None}
        if not isinstance(stored, Mapping) or not {"bytes", "path"} <= stored.keys():
            there = ", ".join(row)
            raise DataError(f"{self.name} has no images in a column {self.image!r} for source.image; it has {there}")
        return stored


def _decoder(features: Mapping[str, Any]) -> Callable[[Row], Row]:
    """What turns a stored row into the values that it stands for: classes by name, JSON that is kept as text parsed."""
    of = {name: _decode_feature(feature) for name, feature in features.items()}
    changed = {name: decode for name, decode in of.items() if decode is not None}
    return lambda row: {name: changed[name](value) if name in changed else value for name, value in row.items()}


def _decode_feature(feature: Any) -> Callable[[Any], Any] | None:
    """The same for one column; ``None`` where values are stored as they are meant."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return lambda value: value if value is None or value < 0 else feature.int2str(value)
    if isinstance(feature, datasets.Json):
        return lambda value: value if value is None else tables_json.loads(value.encode())
    if isinstance(feature, datasets.List | datasets.LargeList):
        inner = _decode_feature(feature.feature)
        return inner and (lambda value: value if value is None else [inner(each) for each in value])
    if isinstance(feature, Mapping):
        decode = _decoder(feature)
        changes = any(_decode_feature(each) for each in feature.values())
        return (lambda value: value if value is None else decode(value)) if changes else None
    return None


def _store(target: Path, stored: Mapping[str, Any]) -> Path:
    """Where OCR finds a stored image; an absent one becomes an empty file, which OCR quarantines."""
    if stored["bytes"] is None and stored["path"]:
        return Path(stored["path"])
    target = target.with_suffix(Path(stored["path"] or "").suffix or ".png")
    target.write_bytes(stored["bytes"] or b"")
    return target


def _seen(index: int, page: Page) -> Provenance:
    return Provenance(source="hub", index=index, image_sha256=page.sha256, ocr_confidence=page.confidence)


def _reach_hub(name: str) -> None:
    """Ask the hub for a sign of life; the loader itself would retry for half a minute before it gives up.

    Raises:
        DataError: Nothing answers.
    """
    import datasets.config
    from huggingface_hub import get_session

    if datasets.config.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(datasets.config.HF_ENDPOINT, timeout=CONNECT_SECONDS)
    except Exception as error:  # of whichever HTTP library huggingface_hub stands on
        raise DataError(
            f"source.name={name}: the Hugging Face Hub ({datasets.config.HF_ENDPOINT}) cannot be reached ({error}). "
            "Check the network or a proxy (HTTPS_PROXY), name a mirror (HF_ENDPOINT), use what is already in the cache "
            "(HF_HUB_OFFLINE=1), or name a local folder"
        ) from error
