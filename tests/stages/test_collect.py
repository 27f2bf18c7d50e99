"""Stage ``collect``: what lands in the file, in every format."""

from __future__ import annotations

import json

import pytest

from loraloop.core import tables

COLLECT = ("stage=collect", "source=flips", "source.runs=2")


def test_jsonl_holds_every_row_and_the_summary_says_how_many(desk):
    """stage=collect with .jsonl writes one JSON object per example and prints the counts of both parts."""
    seen = desk(*COLLECT, "dataset.export=data.jsonl")
    rows = [json.loads(line) for line in (desk.folder / "data.jsonl").read_text().splitlines()]
    splits = [row["split"] for row in rows]
    assert seen.line("rows") == f"{splits.count('train')} train, {splits.count('validation')} validation"
    assert len(rows) == 64
    assert all(row["output"] == f"{row['input'].count('H')} heads, {row['input'].count('T')} tails" for row in rows)


@pytest.mark.parametrize("name", ["data.csv", "data.toon", "data.parquet", "data.alpaca.jsonl"])
def test_each_file_format_holds_all_rows(desk, name):
    """stage=collect writes all 64 rows in the format that the suffix names."""
    desk(*COLLECT, f"dataset.export={name}")
    bad: list[tuple[int, str]] = []
    assert len(list(tables.read(desk.folder / name, lambda *each: bad.append(each)))) == 64
    assert bad == []


def test_csv_has_the_three_columns_people_join_on(desk):
    """A .csv export begins with the columns image_path, ocr_text and flip_label; what is known beyond them follows."""
    desk(*COLLECT, "dataset.export=data.csv")
    assert (desk.folder / "data.csv").read_text().startswith("image_path,ocr_text,flip_label,")


def test_alpaca_rows_have_alpacas_keys(desk):
    """An .alpaca.jsonl export holds instruction, input and output under Alpaca's names, before anything else."""
    desk(*COLLECT, "dataset.export=data.alpaca.jsonl")
    row = json.loads((desk.folder / "data.alpaca.jsonl").read_text().splitlines()[0])
    assert list(row)[:3] == ["instruction", "input", "output"]
    assert row["output"].endswith(" tails")


def test_a_folder_opens_with_the_datasets_library(desk):
    """An export without a suffix is a folder that datasets.load_from_disk reads, with both splits."""
    import datasets

    desk(*COLLECT, "dataset.export=data")
    loaded = datasets.load_from_disk(desk.folder / "data")
    assert sum(len(split) for split in loaded.values()) == 64
    assert sorted(loaded) == ["train", "validation"]


def test_what_was_collected_trains_as_source_files_without_naming_columns(desk):
    """A collected .jsonl is itself an input of source=files, with the same number of rows."""
    desk(*COLLECT, "dataset.export=data.jsonl")
    seen = desk("stage=collect", "source=files", "source.path=data.jsonl", "dataset.export=again.jsonl")
    assert sum(int(part.split()[0]) for part in seen.line("rows").split(", ")) == 64


def test_no_export_is_refused_before_any_work(desk):
    """stage=collect without dataset.export ends with code 2 and lists the formats."""
    seen = desk.attempt(*COLLECT)
    assert seen.code == 2
    assert seen.err.startswith("loraloop: stage=collect needs dataset.export=FILE")
    assert ".parquet" in seen.err


@pytest.mark.parametrize("template", ["chatml", "llama2", "plain"])
def test_conversations_with_calls_are_exported_by_every_template_that_shows_them(desk, template):
    """The model's tokenizer renders them, and the file holds each conversation once, with its tools and calls."""
    calls = ("stage=collect", "source=agent_calls", "source.conversations=8", "dataset.export=data.jsonl")
    desk(*calls, f"dataset.template={template}")
    rows = [json.loads(line) for line in (desk.folder / "data.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert all(row["tools"] and any(turn.get("tool_calls") for turn in row["messages"]) for row in rows)


def test_a_template_that_hides_calls_names_one_that_exports_them(desk):
    """The default format string and a chat template without calls say which choice works."""
    calls = ("stage=collect", "source=agent_calls", "source.conversations=8", "dataset.export=data.jsonl")
    for dataset in ("default", "chat"):
        assert "dataset.template=chatml does" in desk.attempt(*calls, f"dataset={dataset}").err
