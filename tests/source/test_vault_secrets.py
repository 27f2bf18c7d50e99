"""What the vault source does with secrets on a person's images; the words are read by the real engine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from loraloop.errors import DataError
from loraloop.ocr.tesseract import Tesseract
from loraloop.records import Page
from loraloop.source.vault import Vault

PASSWORD = "hunter2blue"  # noqa: S105
LINES = ("Server room\nPassword: " + PASSWORD, "Meeting at noon\nBring two keys")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two pages: one with a password on its second line, one without."""
    folder = tmp_path_factory.mktemp("scans")
    for name, text in zip("ab", LINES, strict=True):
        image = Image.new("L", (760, 240), 255)
        ImageDraw.Draw(image).multiline_text((30, 40), text, fill=0, font=ImageFont.load_default(44), spacing=30)
        image.save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def ocr(tmp_path_factory):
    return Tesseract(cache=tmp_path_factory.mktemp("cache"))


def collected(scans, ocr, **fields):
    return Vault(path=str(scans), synthetic=0, **fields).collect(ocr)


def test_a_page_with_a_secret_is_set_aside_by_default(scans, ocr):
    """The page with a password is quarantined, the other one is used; the reason names kind and line alone."""
    found = collected(scans, ocr)
    assert [one.output for one in found.examples] == [LINES[1]]
    [aside] = found.quarantined
    assert aside.reason == "holds secrets: password on line 2 (source.secrets=mask masks them)"


def test_a_secret_is_masked_on_request(scans, ocr):
    """With secrets=mask both pages are used, and the kind stands in the place of the password."""
    outputs = [one.output for one in collected(scans, ocr, secrets="mask").examples]
    assert outputs == ["Server room\nPassword: [password]", LINES[1]]


def test_secrets_are_kept_on_request(scans, ocr):
    """With secrets=keep the text is what was read."""
    assert [one.output for one in collected(scans, ocr, secrets="keep").examples] == list(LINES)


def test_the_true_text_beside_an_image_is_searched_too(scans, ocr, tmp_path):
    """A secret in NAME.txt alone, which would become the target, is set aside or masked like one that was read."""
    shutil.copy(scans / "b.png", tmp_path)
    (tmp_path / "b.txt").write_text(f"Meeting at noon\n{LINES[0]}")
    with pytest.raises(DataError, match="in its true text password on line 3"):
        collected(tmp_path, ocr)
    masked = collected(tmp_path, ocr, secrets="mask")
    assert {one.output for one in masked.examples} == {"Meeting at noon\nServer room\nPassword: [password]"}


def test_e_mail_addresses_are_secrets_by_option(tmp_path, ocr, scans):
    """A page with an address is used by default and set aside with emails=true."""
    shutil.copy(scans / "b.png", tmp_path)
    (tmp_path / "b.txt").write_text("jane.doe@example.org")
    assert len(collected(tmp_path, ocr).examples) == 2
    with pytest.raises(DataError, match="in its true text e-mail address on line 1"):
        collected(tmp_path, ocr, emails=True)


class SameText:
    """A reader to whom every image says the same."""

    def read(self, images: Iterable[Path]) -> Iterator[Page]:
        """One page per image."""
        for image in images:
            yield Page(
                image=str(image),
                sha256=image.stem,
                width=1,
                height=1,
                text=LINES[0],
                confidence=90.0,
                words=(),
                engine="same text",
                steps=(),
                seconds=0.0,
            )


def test_what_a_drawn_vault_says_is_no_secret(tmp_path, scans):
    """The same text is used from a drawn vault, where it is to be learned, and set aside from a person's image."""
    vault = Vault(path=str(scans / "b.png"), synthetic=2, augment={"copies": 1}, cache=tmp_path)
    found = vault.collect(SameText())
    assert {one.input for one in found.examples if one.task == "vault_denoise"} == {LINES[0]}
    assert len(found.examples) == 2 * 2 * 3
    assert {(Path(one.item).suffix, one.reason[:13]) for one in found.quarantined} == {(".png", "holds secrets")}
    assert len(found.quarantined) == 2


def test_no_secret_reaches_output_or_log(desk, scans, caplog):
    """A whole collect of a page with a password prints, logs and writes nothing of it, masked or quarantined."""
    caplog.set_level(logging.DEBUG)
    command = ("stage=collect", "source=vault", f"source.path={scans}", "source.synthetic=0", "dataset.export=d.jsonl")
    for action in ("quarantine", "mask"):
        seen = desk.attempt(*command, "dataset.min_rows=2", f"source.secrets={action}", "ocr.cache=null")
        assert f"{seen.out}{seen.err}".count("holds secrets: password on line 2") == (action == "quarantine")
        assert PASSWORD not in seen.out + seen.err + caplog.text
        logs = (desk.folder / "mlruns").rglob("*.log")
        assert PASSWORD not in "".join(path.read_text("utf-8") for path in logs)
        assert not any(PASSWORD in file.read_text("utf-8") for file in desk.folder.glob("*.jsonl"))
    assert "[password]" in (desk.folder / "d.jsonl").read_text("utf-8")


def test_rows_of_an_earlier_reading_are_searched_like_images(desk, scans):
    """stage=read writes text as it was read; a secret in its rows is found when they become examples."""
    desk("stage=read", f"source.path={scans}", "source.synthetic=0", "output=pages.jsonl")
    assert PASSWORD in (desk.folder / "pages.jsonl").read_text("utf-8")
    found = Vault(path=str(desk.folder / "pages.jsonl"), synthetic=0).collect(None)
    assert [item.reason[:14] for item in found.quarantined] == ["holds secrets:"]
    assert PASSWORD not in repr(found)
