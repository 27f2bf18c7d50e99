"""The vault source, with real images and the real engine."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError
from rapidfuzz.distance import Levenshtein

from loraloop.errors import ConfigError, DataError
from loraloop.ocr.tesseract import Tesseract
from loraloop.records import Example, Provenance
from loraloop.source.vault import Vault, drawing, pictures
from loraloop.source.vault.pairing import flips_of

LOOKS = ("clean", "small", "dark", "noisy", "rotated", "gradient")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One cache for all tests: every image is drawn and read once."""
    return tmp_path_factory.mktemp("vaults")


@pytest.fixture(scope="module")
def ocr(place):
    return Tesseract(cache=place / "ocr")


@pytest.fixture(scope="module")
def vault(place):
    return Vault(synthetic=12, seed=3, cache=place / "drawn")


@pytest.fixture(scope="module")
def collected(vault, ocr):
    return vault.collect(ocr)


@pytest.fixture
def scans(vault, collected, tmp_path):
    """Three drawn vaults as a person's scans, without their true text."""
    drawn = sorted((vault.cache).glob("*/*-clean.png")) + sorted((vault.cache).glob("*/*-dark.png"))
    (tmp_path / "scans").mkdir()
    for number, file in enumerate(drawn[:3]):
        shutil.copy(file, tmp_path / "scans" / f"scan{number}.png")
    return tmp_path / "scans"


def example(task: str, output: str) -> Example:
    return Example.one_turn(input="", output=output, task=task, provenance=Provenance(source="vault"))


def test_every_drawn_vault_gives_every_pairing(collected):
    """Twelve drawn vaults of all looks give twelve rows of each pairing, and none is set aside."""
    assert Counter(one.task for one in collected.examples) == {
        "vault_denoise": 12,
        "vault_flips": 12,
        "vault_count": 12,
    }
    assert collected.quarantined == ()


def test_drawn_vaults_are_read_nearly_without_error(collected):
    """Over two vaults of each look at most 1.5% of the characters are wrong, and every vault is 95% right."""
    rows = [one for one in collected.examples if one.task == "vault_denoise"]
    wrong = [Levenshtein.distance(" ".join(row.input.split()), " ".join(row.output.split())) for row in rows]
    lengths = [len(" ".join(row.output.split())) for row in rows]
    assert sum(wrong) / sum(lengths) <= 0.015
    assert max(w / n for w, n in zip(wrong, lengths, strict=True)) < 0.05


def test_the_flips_spell_everything_that_is_paired(collected):
    """In every row the flips decide the text and the count."""
    for denoise, flips, count in zip(*[iter(collected.examples)] * 3, strict=True):
        assert drawing.plate(flips.input) == flips.output == denoise.output
        assert count.output == f"{flips.input.count('H')} heads, {flips.input.count('T')} tails"
        assert count.input == denoise.input


def test_the_same_settings_give_the_same_examples(vault, collected, ocr):
    """A second collection equals the first one."""
    assert vault.collect(ocr) == collected


def test_every_row_knows_its_image(collected):
    """Provenance holds the image, its hash, seed, index and confidence; the rows of an image share their origin."""
    for index, rows in enumerate(zip(*[iter(collected.examples)] * 3, strict=True)):
        for row in rows:
            origin = row.provenance
            assert (origin.source, origin.seed, origin.index) == ("vault", 3, index)
            assert origin.image_sha256 == row.origin == rows[0].origin
            assert Path(origin.image_path).is_file()
            assert origin.ocr_confidence > 50
    assert len({row.origin for row in collected.examples}) == 12


def test_images_without_true_text_give_flips_and_what_was_read(scans, ocr):
    """A person's images without sidecars give seeded flips -> text as read, the same for the same seed."""
    rows = Vault(path=str(scans), synthetic=0, seed=1).collect(ocr).examples
    assert [row.task for row in rows] == ["vault_flips"] * 3
    assert all(set(row.input) == {"H", "T"} and len(row.input) == 32 and "Code" in row.output for row in rows)
    assert Vault(path=str(scans), synthetic=0, seed=1).collect(ocr).examples == rows
    assert Vault(path=str(scans), synthetic=0, seed=2).collect(ocr).examples[0].input != rows[0].input


def test_a_sidecar_makes_denoise_rows(scans, ocr):
    """NAME.txt beside NAME.png is the target of the text read from it."""
    (scans / "scan1.txt").write_text("The true text\n", "utf-8")
    rows = Vault(path=str(scans / "scan1.png"), synthetic=0).collect(ocr).examples
    assert [(row.task, row.output) for row in rows] == [
        ("vault_denoise", "The true text"),
        ("vault_flips", "The true text"),
    ]


def test_what_cannot_be_used_is_set_aside_with_its_reason(scans, ocr):
    """Broken images, a blank page and a bad sidecar are listed with reasons; the good image still gives its row."""
    (scans / "scan0.png").write_bytes((scans / "scan0.png").read_bytes()[:500])
    Image.new("L", (200, 100), 255).save(scans / "scan1.png")
    shutil.copy(scans / "scan2.png", scans / "scan3.png")
    (scans / "scan3.txt").write_bytes(b"\xff\xfe\xff")
    (scans / "notes.md").write_text("not an image")
    found = Vault(path=str(scans), synthetic=0).collect(ocr)
    assert len(found.examples) == 1
    reasons = {Path(item.item).name: item.reason for item in found.quarantined}
    assert reasons.keys() == {"scan0.png", "scan1.png", "scan3.png"}
    assert "truncated" in reasons["scan0.png"]
    assert reasons["scan1.png"] == "no text was found"
    assert "scan3.txt cannot be read" in reasons["scan3.png"]


def test_nothing_usable_is_an_error_that_says_how_many_and_why(scans, ocr):
    """When every image is set aside the error counts them and gives their reasons."""
    for scan in scans.iterdir():
        scan.write_bytes(b"")
    with pytest.raises(DataError, match=r"found 3 images and none gave an example: 3 x is empty \(0 bytes\)"):
        Vault(path=str(scans), synthetic=0).collect(ocr)


def test_a_pairing_without_its_truth_names_the_missing_file(scans, ocr):
    """Asking for denoise rows alone from images without sidecars names the file that is missing."""
    with pytest.raises(DataError, match=r"source.pairing=denoise needs its true text in scan0.txt"):
        Vault(path=str(scans), synthetic=0, pairing=("denoise",)).collect(ocr)


def test_pages_below_the_confidence_are_set_aside(scans, ocr):
    """No page reaches a confidence of 100, so all are set aside by that key."""
    with pytest.raises(DataError, match=r"below source.min_confidence=100"):
        Vault(path=str(scans), synthetic=0, min_confidence=100).collect(ocr)


def test_copies_stay_with_their_image_and_are_the_same_every_time(scans, place, ocr):
    """Two copies of each image differ from it and each other, share its origin, and repeat for the same seed."""
    augmented = Vault(path=str(scans), synthetic=0, augment={"copies": 2}, cache=place / "copied")
    rows = augmented.collect(ocr).examples
    assert Counter(Counter(row.origin for row in rows).values()) == {3: 3}
    assert len({row.provenance.image_sha256 for row in rows}) == 9
    shutil.rmtree(place / "copied")
    assert augmented.collect(ocr).examples == rows


def test_drawing_is_repeatable_and_done_once(place):
    """Vaults drawn twice have the same bytes, and vaults that are there are not drawn again."""
    one = pictures.drawn(place / "one", 5, 6, LOOKS)
    times = [file.stat().st_mtime_ns for file in one]
    two = pictures.drawn(place / "two", 5, 6, LOOKS)
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
    assert [file.stat().st_mtime_ns for file in pictures.drawn(place / "one", 5, 6, LOOKS)] == times
    assert [pictures.sidecar(file) for file in one] == [drawing.draw(5, i, LOOKS[i]).text for i in range(6)]


def test_vaults_look_different(place):
    """Seeds, indices and looks change the picture; dark mode is dark."""
    seen = {drawing.draw(seed, index, "clean").pixels.tobytes() for seed in (0, 1) for index in (0, 1)}
    assert len(seen) == 4
    assert np.median(drawing.draw(0, 0, "dark").pixels) < 80 < np.median(drawing.draw(0, 0, "clean").pixels)


@settings(max_examples=50, deadline=None)
@given(st.text("HT", min_size=32, max_size=32))
def test_flips_survive_the_plate(flips):
    """The flips can be read off the plate that they spell, which is short and carries them as a hexadecimal code."""
    text = drawing.plate(flips)
    assert flips_of(text) == flips
    assert len(text) <= 140
    assert int(text.split("\n")[1].removeprefix("Code ").replace("-", ""), 16) == int(
        flips.replace("H", "1").replace("T", "0"), 2
    )


def test_a_file_a_folder_and_a_glob_are_found(tmp_path):
    """Images are found by suffix in any case, also in folders below; hidden and other files are not."""
    for name in ("b.PNG", "a.jpg", "c.txt", ".d.png", "below/e.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in pictures.find(str(tmp_path))] == ["a.jpg", "b.PNG", "e.webp"]
    assert [file.name for file in pictures.find(f"{tmp_path}/*")] == ["a.jpg", "b.PNG"]
    assert pictures.find(str(tmp_path / "c.txt")) == [tmp_path / "c.txt"]


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.jfif", "a.jp2"])
def test_uncommon_images_in_a_folder_are_read(name, tmp_path, ocr):
    """A folder's BMP, GIF, JFIF and JPEG 2000 pictures are found and read like any other."""
    picture = Image.new("L", (500, 90), 255)
    ImageDraw.Draw(picture).text((20, 25), "The quick brown fox", fill=0, font=ImageFont.load_default(36))
    picture.save(tmp_path / name)
    [found] = pictures.find(str(tmp_path))
    assert [page.text for page in ocr.read([found])] == ["The quick brown fox"]


@pytest.mark.parametrize("name", ["book.tiff", "book.pdf"])
def test_each_page_of_a_file_is_a_picture(name, scans, tmp_path, ocr):
    """A TIFF or PDF of two pages gives a row a page, each with its own true text, and copies of each."""
    first, second = (Image.open(scans / f"scan{number}.png").convert("L") for number in (0, 1))
    (tmp_path / "book").mkdir()
    first.save(tmp_path / "book" / name, save_all=True, append_images=[second])
    (tmp_path / "book" / "book#2.txt").write_text("The second page\n", "utf-8")
    book = Vault(path=str(tmp_path / "book"), synthetic=0, pairing=("flips",), augment={"copies": 1}, cache=tmp_path)
    collected = book.collect(ocr)
    assert collected.quarantined == ()
    rows = [(Path(row.provenance.image_path or "").name, "second" in row.output) for row in collected.examples]
    assert rows[:2] == [(f"{name}#1", False), (f"{name}#2", True)]
    assert [second for _, second in rows[2:]] == [False, True]


def test_a_name_that_is_not_utf8_costs_one_picture(scans, ocr):
    """An image whose name is stray bytes is set aside with the way out, and the others give their rows."""
    shutil.copy(scans / "scan0.png", scans / os.fsdecode(b"caf\xe9.png"))
    collected = Vault(path=str(scans), synthetic=0, pairing=("flips",)).collect(ocr)
    assert len(collected.examples) == 3
    assert [(Path(one.item).name, one.reason) for one in collected.quarantined] == [
        (r"caf\xe9.png", "its name is not UTF-8: rename it")
    ]


def test_black_text_on_transparency_stays_readable_in_copies(tmp_path, ocr):
    """The damaged copy of a transparent picture with black text lies on white, as the picture itself is read."""
    letters = Image.new("L", (500, 90), 0)
    ImageDraw.Draw(letters).text((20, 25), "The quick brown fox", fill=255, font=ImageFont.load_default(36))
    picture = Image.new("RGBA", letters.size, (0, 0, 0, 0))
    picture.putalpha(letters)
    picture.save(tmp_path / "a.png")
    copy = pictures.copied(pictures.Picture(tmp_path / "a.png", 0, None), 1, tmp_path / "copies", 0, 1.0, 4.0)
    assert [page.text for page in ocr.read([tmp_path / "a.png", copy.path])] == ["The quick brown fox"] * 2


def test_a_path_without_images_is_refused_before_any_work(tmp_path):
    """A folder that is missing or holds no image is named with its key and what to write instead."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=r"source.path=.* leads to no image"):
            Vault(path=str(path), synthetic=0).check()


def test_settings_that_read_nothing_are_refused():
    """Neither a path nor drawn vaults, or a pairing twice, cannot be built."""
    with pytest.raises(ValidationError, match="name images by path"):
        Vault(synthetic=0)
    with pytest.raises(ValidationError, match="names one twice"):
        Vault(pairing=("count", "count"))


def test_texts_may_be_five_percent_off_and_counts_not():
    """A text is right above 95% of its characters whatever its line breaks; a count must be equal."""
    text = "x" * 99 + "\n" + "y" * 100
    assert Vault().correct(example("vault_denoise", text), text.replace("\n", "  ").replace("yyyyy", "zzzzz", 1))
    assert not Vault().correct(example("vault_denoise", text), text.replace("y" * 11, "z" * 11, 1))
    assert Vault().correct(example("vault_count", "17 heads, 15 tails"), " 17 heads,  15 tails\n")
    assert not Vault().correct(example("vault_count", "17 heads, 15 tails"), "17 heads, 16 tails")


@pytest.mark.parametrize(("file", "part"), [("source/vault", Vault), ("ocr/tesseract_psm6", Tesseract)])
def test_the_yaml_holds_every_field_with_its_default(file, part):
    """The packaged configuration names exactly the part's fields and their defaults."""
    text = (
        (Path(__file__).parents[2] / "conf" / f"{file}.yaml")
        .read_text("utf-8")
        .replace("${seed}", "0")
        .replace("${folder}", "mlruns")
    )
    keys = yaml.safe_load(text)
    target = keys.pop("_target_")
    assert target.rpartition(".")[2] == part.__name__
    assert part(**keys) == part()
    assert set(keys) == set(part.__dataclass_fields__)
