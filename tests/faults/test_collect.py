"""What goes wrong while examples are collected."""

from __future__ import annotations

import struct
import zlib

import pytest

from faults.conftest import FULL_DISK

COLLECT = ("stage=collect", "source.runs=40", "dataset.export=rows.jsonl")


@pytest.mark.fault("kill -9", "collect", "the earlier file is whole; the repeated command replaced it")
def test_killed_while_the_file_is_written(office, broken):
    """Kill -9 before the file has its name leaves the earlier file whole, and the repeated command replaces it."""
    office("stage=collect", "source.runs=2", "dataset.export=rows.jsonl")
    before = (office.folder / "rows.jsonl").read_bytes()
    broken.killed("import pathlib\npathlib.Path.replace = die", *COLLECT)
    assert (office.folder / "rows.jsonl").read_bytes() == before
    office(*COLLECT)
    assert (office.folder / "rows.jsonl").read_bytes().count(b"\n") == 40 * 32


@pytest.mark.fault("disk full", "collect", "the earlier file is whole, nothing of the new one is left")
def test_a_full_disk(office, broken, told):
    """A disk that fills up while the file is written leaves the earlier one, and one sentence says what to do."""
    office("stage=collect", "source.runs=2", "dataset.export=rows.jsonl")
    before = office.files()
    seen = broken(FULL_DISK.format(bytes=20_000), *COLLECT)
    assert (seen.code, "Traceback" in seen.err) == (1, False)
    assert "rows.jsonl cannot be written: File too large" in seen.err
    assert {name for name in office.files() - before if not name.startswith("mlruns/jobs/")} == set()
    told(seen.err)


@pytest.mark.fault("bad and half input", "collect", "9 of 12 rows written, 3 quarantined by line")
def test_bad_and_half_input(desk, told):
    """A torn row, a NaN and a row without an answer cost themselves, and are named with their lines."""
    rows = [f'{{"input": "q{index}", "output": "a{index}"}}' for index in range(12)]
    rows[3:6] = ['{"input": "q", "output": NaN}', '{"input": "q"}', '{"input": "q", "outp']
    (desk.folder / "rows.jsonl").write_text("\n".join(rows))
    seen = desk("stage=collect", "source=files", "source.path=rows.jsonl", "dataset.export=out.jsonl")
    assert "quarantined: 3\n" in seen.out
    assert all(f"rows.jsonl:{line}" in seen.out for line in (4, 5, 6))
    assert (desk.folder / "out.jsonl").read_text().count("\n") == 9
    told(seen.out.splitlines()[1])


@pytest.mark.fault("image bomb", "collect", "the picture is quarantined, the others are read")
def test_an_image_bomb(desk, told):
    """A picture of 2,000 megapixels in 60 bytes is set aside by its header, before a pixel is unpacked."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 40_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (desk.folder / "scans").mkdir()
    (desk.folder / "scans/bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")
    vault = ("stage=collect", "source=vault", "source.path=scans", "source.synthetic=2")
    seen = desk(*vault, "dataset.export=out.jsonl")
    assert "quarantined: 1\n  1 x has 50000 x 40000 = 2000.0 megapixels, more than ocr.max_pixels=" in seen.out
    told(seen.out.splitlines()[1])


@pytest.mark.fault("hostile _target_", "collect", "refused before anything is imported")
def test_a_hostile_target(desk, told):
    """A `_target_` outside the allowed prefixes runs nothing and is refused by its key."""
    seen = desk.attempt(
        "stage=collect", "dataset.export=x.jsonl", "source._target_=os.system", "+source.command=touch x"
    )
    assert seen.code == 2
    assert not (desk.folder / "x").exists()
    told(seen.err)
