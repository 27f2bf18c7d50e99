"""The part: vault images are read by OCR and paired into examples, and each one that is not says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loraloop.core import secrets
from loraloop.core.console import printable
from loraloop.core.part import part
from loraloop.core.progress import track
from loraloop.errors import ConfigError, DataError
from loraloop.protocols import Ocr
from loraloop.records import Collection, Example, Page, Provenance, Quarantined
from loraloop.source.answers import same
from loraloop.source.vault import pictures, rows
from loraloop.source.vault.drawing import Look
from loraloop.source.vault.pairing import PAIRINGS, Pairing
from loraloop.source.vault.pictures import Picture

CHARACTER_ACCURACY = 0.95


@part
class Augment:
    """Copies of every image with small damage.

    Attributes:
        copies: Copies per image.
        max_rotation_degrees: Largest turn, either way.
        noise: Largest standard deviation of the added noise, in grey levels.
    """

    copies: Annotated[int, Field(ge=0, le=100)] = 0
    max_rotation_degrees: Annotated[float, Field(ge=0, le=8)] = 2.0
    noise: Annotated[float, Field(ge=0, le=64)] = 6.0


@part
class Vault:
    """Vaults read by OCR: a person's images, drawn ones whose text is known, or both.

    Every image gives one example per pairing that its truth allows. The truth of a drawn vault is known, that of
    another image from ``NAME.txt`` beside it. ``denoise`` needs the truth, ``count`` a truth with lines of ``H`` and
    ``T``; ``flips`` takes the flips of the truth, or seeded ones and the text as read where there is none.

    Attributes:
        path: A file, a folder or a glob of a person's images, or the ``.jsonl`` rows that ``stage=read`` wrote of them;
            ``null`` for none.
        synthetic: Number of vaults to draw.
        seed: Seed of drawings, augmentation and flips.
        looks: Looks of drawn vaults, taken in turn.
        pairing: Kinds of examples.
        min_confidence: Pages read with a lower mean word confidence (0..100) are set aside.
        secrets: What becomes of a person's pages that hold a secret, as read or in the sidecar: ``quarantine`` sets
            them aside, ``mask`` puts the kind in the place of the secret, ``keep`` does not look.
        emails: Whether e-mail addresses are secrets.
        augment: Damaged copies.
        cache: Folder of the drawn and damaged images.
    """

    SCREENED = True  # page by page, where the true text beside an image is at hand

    path: Annotated[str, Field(min_length=1)] | None = None
    synthetic: Annotated[int, Field(ge=0, le=100_000)] = 200
    seed: Annotated[int, Field(ge=0)] = 0
    looks: Annotated[tuple[Look, ...], Field(min_length=1)] = (
        "clean",
        "small",
        "dark",
        "noisy",
        "rotated",
        "gradient",
    )
    pairing: Annotated[tuple[Pairing, ...], Field(min_length=1)] = ("denoise", "flips", "count")
    min_confidence: Annotated[float, Field(ge=0, le=100)] = 30.0
    secrets: Literal["quarantine", "mask", "keep"] = "quarantine"
    emails: bool = False
    augment: Augment = Augment()
    cache: Path = Path("mlruns/cache/vaults")

    @model_validator(mode="after")
    def _reads_something(self) -> Vault:
        if self.path is None and self.synthetic == 0:
            raise ValueError("path is null and synthetic is 0: name images by path, or draw some with synthetic=200")
        if len(set(self.pairing)) < len(self.pairing):
            raise ValueError(f"pairing names one twice: {', '.join(self.pairing)}; name each once")
        if self._read_before and self.augment.copies:
            raise ValueError(f"augment.copies needs images, and path={self.path} holds rows: name the images")
        return self

    @property
    def _read_before(self) -> Path | None:
        """The rows of ``stage=read``, where ``path`` leads to them."""
        path = self.path or ""
        return Path(path).expanduser() if path.endswith(rows.SUFFIX) else None

    def check(self) -> None:
        """Find the person's images.

        Raises:
            ConfigError: ``path`` leads to no image, or to a file of other rows than those of ``stage=read``.
        """
        if self._read_before:
            rows.check(self._read_before)
        elif self.path is not None and not pictures.find(self.path):
            kinds = ", ".join(sorted(pictures.SUFFIXES))
            raise ConfigError(
                f"source.path={self.path!r} leads to no image ({kinds}): name a file, a folder or a glob such as "
                "'scans/*.png', relative to the current folder, or draw vaults with source.path=null"
            )

    def collect(self, ocr: Ocr | None) -> Collection:
        """Draw or find the images, read them and their copies, and pair what was read.

        Raises:
            ConfigError: ``path`` leads to no image.
            DataError: No image gave an example; the message says how many there were and why.
        """
        self.check()
        found, aside = self._pictures()
        if ocr is None and found:
            raise DataError("source=vault reads images: give it an OCR engine, such as ocr=tesseract_psm6")
        pages = list(zip(found, _read(ocr, found), strict=True))
        if self._read_before:
            before, bad = rows.read(self._read_before, len(found))
            pages, aside = pages + before, aside + bad
        images = len(pages) + len(aside)
        origins = {picture.index: page.sha256 for picture, page in pages}
        copies = self._copies([picture for picture, page in pages if page.status == "ok"])
        pages += zip(copies, _read(ocr, copies), strict=True)
        examples: list[Example] = []
        for picture, page in pages:
            made, reason = self._examples(picture, page, origins[picture.index])
            examples += made
            aside += [Quarantined(printable(str(picture.path)), reason)] if reason else []
        if not examples:
            raise DataError(_nothing(images, aside))
        return Collection(tuple(examples), tuple(aside))

    def images(self) -> list[Path]:
        """The images to read: drawn ones first, then the person's.

        Raises:
            ConfigError: ``path`` leads to rows that were read before.
        """
        if self._read_before:
            raise ConfigError(f"source.path={self.path} has been read: name images, such as source.path=scans/")
        return self._files()

    def correct(self, example: Example, answer: str) -> bool:
        """Counts must be equal but for case and white space; texts must agree in more than 95% of their characters."""
        if example.task == "vault_count":
            return same(example.output, answer)
        from rapidfuzz.distance import Levenshtein

        texts = " ".join(example.output.split()), " ".join(answer.split())
        return bool(Levenshtein.normalized_similarity(*texts) > CHARACTER_ACCURACY)

    def _files(self) -> list[Path]:
        files = pictures.drawn(self.cache, self.seed, self.synthetic, self.looks) if self.synthetic else []
        return files if self.path is None or self._read_before else files + pictures.find(self.path)

    def _pictures(self) -> tuple[list[Picture], list[Quarantined]]:
        found, aside = [], []
        for index, file in enumerate(self._files()):
            try:
                found.append(Picture(file, index, pictures.sidecar(file)))
            except DataError as error:
                aside.append(Quarantined(printable(str(file)), str(error)))
        return found, aside

    def _copies(self, originals: Sequence[Picture]) -> list[Picture]:
        how = self.augment
        return [
            pictures.copied(picture, copy, self.cache / "copies", self.seed, how.max_rotation_degrees, how.noise)
            for picture in originals
            for copy in range(1, how.copies + 1)
        ]

    def _examples(self, picture: Picture, page: Page, origin: str) -> tuple[list[Example], str]:
        """The examples of a page, or the reason why there are none."""
        if page.status != "ok":
            return [], page.reason
        if not page.text.strip():
            return [], "no text was found"
        if page.confidence < self.min_confidence:
            return [], f"confidence {page.confidence:.0f} is below source.min_confidence={self.min_confidence:g}"
        picture, text, reason = self._safe(picture, page.text)
        if reason:
            return [], reason
        provenance = Provenance(
            source="vault",
            seed=self.seed,
            index=picture.index,
            image_path=str(picture.path),
            image_sha256=page.sha256,
            ocr_confidence=page.confidence,
        )
        made = []
        for pairing in self.pairing:
            pair = PAIRINGS[pairing](picture, text, self.seed)
            if pair is not None:
                example = Example.one_turn(
                    instruction=pair.instruction,
                    input=pair.input,
                    output=pair.output,
                    task=f"vault_{pairing}",
                    origin=origin,
                    provenance=provenance,
                )
                made.append(example)
        sidecar = pictures.beside(picture.path).name
        return made, "" if made else f"source.pairing={','.join(self.pairing)} needs its true text in {sidecar}"

    def _safe(self, picture: Picture, read: str) -> tuple[Picture, str, str]:
        """Picture and text without secrets, or the reason to set them aside, which tells no value.

        A drawn vault's code is no secret: it is what is to be learned.
        """
        if self.secrets == "keep" or picture.index < self.synthetic:
            return picture, read, ""
        truth = picture.truth or ""
        found, known = secrets.find(read, self.emails), secrets.find(truth, self.emails)
        if not found and not known:
            return picture, read, ""
        if self.secrets == "quarantine":
            told = secrets.describe(read, found) or f"in its true text {secrets.describe(truth, known)}"
            return picture, "", f"holds secrets: {told} (source.secrets=mask masks them)"
        return replace(picture, truth=secrets.mask(truth, known) or None), secrets.mask(read, found), ""


def _read(ocr: Ocr | None, found: Sequence[Picture]) -> Iterable[Page]:
    if ocr is None or not found:
        return ()
    pages = ocr.read(picture.path for picture in found)
    return track(pages, "reading vaults", "page", len(found))


def _nothing(images: int, aside: Sequence[Quarantined]) -> str:
    reasons = Counter(item.reason for item in aside).most_common(3)
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return f"source=vault found {images} images and none gave an example: {told} (the first: {aside[0].item})"
