"""Images and recordings in messages."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from loraloop.errors import ModelError
from loraloop.ocr.tesseract import Tesseract
from loraloop.serve.speech import Recogniser

RATE = 16_000


def picture(text: str = "VAULT 1403", kind: str = "PNG") -> bytes:
    """A page with one line of text."""
    page = Image.new("RGB", (600, 120), "white")
    ImageDraw.Draw(page).text((20, 30), text, "black", ImageFont.truetype("DejaVuSans.ttf", 48))
    file = io.BytesIO()
    page.save(file, kind)
    return file.getvalue()


def image(data: bytes, kind: str = "image/png") -> dict:
    """A part of a message with an image."""
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def recording(seconds: float = 0.5, rate: int = RATE, channels: int = 1, width: int = 2) -> bytes:
    """A WAV file with a tone."""
    samples = np.sin(np.arange(int(seconds * rate) * channels) / 20) * (2 ** (8 * width - 1) - 1)
    kinds = {1: "u1", 2: "<i2", 4: "<i4"}
    raw = (samples + (128 if width == 1 else 0)).astype(kinds[width]).tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(channels)
        wav.setsampwidth(width)
        wav.setframerate(rate)
        wav.writeframes(raw)
    return file.getvalue()


def audio(data: bytes) -> dict:
    """A part of a message with a recording."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def said(house, *parts: dict) -> str:
    """What the echo answers to a message of these parts."""
    answer = house.openai().chat.completions.create(model="base", messages=[{"role": "user", "content": list(parts)}])
    return answer.choices[0].message.content


@pytest.fixture(scope="module")
def listener(tmp_path_factory) -> Path:
    """A tiny Wav2Vec2 with random weights and a letter a frame, saved as a person's own model would be."""
    import json

    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
    from transformers import Wav2Vec2Processor as Processor

    folder = tmp_path_factory.mktemp("listener")
    letters = {letter: number for number, letter in enumerate(["<pad>", "<unk>", "|", *"abcdefgh"])}
    (folder / "vocab.json").write_text(json.dumps(letters))
    tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json")
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(16, 16), conv_kernel=(10, 3), conv_stride=(5, 2), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, pad_token_id=0,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Processor(feature_extractor=Wav2Vec2FeatureExtractor(), tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recogniser(listener) -> Recogniser:
    """The model, loaded as the server loads it."""
    made = Recogniser(str(listener))
    made.load()
    return made


def test_an_image_becomes_text_at_its_place(build):
    """OCR's text stands where the image stood, also in the session; several kinds of files are read."""
    house = build(ocr=Tesseract(cache=None, workers=1))
    answer = said(house, {"type": "text", "text": "before"}, image(picture()), {"type": "text", "text": "after"})
    assert answer == "base user: before VAULT 1403 after "
    assert house.sessions.kept[0].prompt == [{"role": "user", "content": "before\nVAULT 1403\nafter"}]
    assert "VAULT" in said(house, image(picture(kind="JPEG"), "image/jpeg"))


@pytest.mark.parametrize(
    ("part", "code", "words"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "invalid_image_url", "is fetched"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "invalid_image_url", "is fetched"),
        ({"type": "image_url", "image_url": {"url": "image/png;base64,eA=="}}, "invalid_image_url", "is fetched"),
        (image(b"GIF89a", "image/gif"), "invalid_image_url", "image/png"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}, "invalid_base64", "base64"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}, "invalid_value", "empty"),
        (image(b"no image"), "unreadable_image", "is not a PNG"),
        (image(picture()[:-20]), "unreadable_image", "truncated"),
    ],
)  # fmt: skip
def test_a_bad_image(reader, part, code, words):
    """An image that cannot be taken or read is a 400 with its place in the request, and no path of the server's."""
    response = reader.chat([{"type": "text", "text": "x"}, part])
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "messages[0].content[1].image_url.url", code)
    assert words in error["message"]
    assert "loraloop-" not in error["message"]


def test_limits_of_files(build):
    """Too large a file and too many of them are refused by the name of the limit."""
    house = build(ocr=Tesseract(cache=None, workers=1), max_file_bytes=1000, max_files=2)
    large = house.chat([image(bytes(2000))])
    assert (large.status_code, large.json()["error"]["code"]) == (413, "file_too_large")
    many = house.chat([image(b"x")] * 3)
    assert (many.status_code, many.json()["error"]["code"]) == (400, "too_many_files")


def test_files_belong_to_the_user(shared):
    """An image in a message of the system is refused by its place."""
    response = shared.chat(messages=[{"role": "system", "content": [image(b"x")]}])
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages[0].content")


@pytest.mark.parametrize("part", [image(picture()), audio(recording())])
def test_a_server_without_the_part_says_so(shared, part):
    """Without OCR or a recogniser, files are refused; what to set is named."""
    response = shared.chat([part])
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_content")


def test_a_recording_becomes_text(build, recogniser, listener):
    """What the speech model hears stands where the recording stood: the same as transformers' own pipeline."""
    from transformers import pipeline

    data = recording()
    samples = np.frombuffer(data[44:], "<i2").astype(np.float32) / 2**15
    heard = pipeline("automatic-speech-recognition", model=str(listener))({"raw": samples, "sampling_rate": RATE})[
        "text"
    ]
    assert heard
    house = build(speech=recogniser)
    answer = said(house, {"type": "text", "text": "hear:"}, audio(data))
    assert answer.split() == ["base", "user:", "hear:", *heard.split()]


def test_recordings_of_other_shapes(recogniser):
    """Rate, channels and sample width are brought to what the model takes."""
    assert recogniser.read(recording(rate=8_000, channels=2), "p")
    assert recogniser.read(recording(width=1), "p")
    assert recogniser.read(recording(width=4, rate=44_100), "p")


@pytest.mark.parametrize(
    "data", [b"no wav", recording()[:40], recording(rate=100), recording(seconds=0), recording(seconds=301, rate=4000)]
)
def test_a_bad_recording(build, recogniser, data):
    """A recording that cannot be taken is a 400 with its place in the request."""
    response = build(speech=recogniser).chat([audio(data)])
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages[0].content[0].input_audio.data")


def test_another_format_of_recording(shared):
    """Only WAV is taken; mp3 is refused by name."""
    part = {"type": "input_audio", "input_audio": {"data": "eA==", "format": "mp3"}}
    response = shared.chat([part])
    assert response.json()["error"]["param"] == "messages[0].content[0].input_audio.format"


def test_a_model_that_is_no_recogniser(tmp_path):
    """A folder without a speech model is an error that names the key."""
    with pytest.raises(ModelError, match=r"server\.speech="):
        Recogniser(str(tmp_path)).load()
