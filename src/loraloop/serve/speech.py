"""Recordings into text, by a speech-recognition model of transformers."""

from __future__ import annotations

import io
import threading
import wave
from typing import TYPE_CHECKING, Any

from loraloop.errors import ModelError
from loraloop.serve.errors import ApiError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECONDS = 300
"""Longest recording."""
RATES = range(4_000, 192_001)
"""Samples per second."""


class Recogniser:
    """A model that ``automatic-speech-recognition`` pipelines load, such as Whisper or Wav2Vec2.

    Args:
        model: Id on the hub, or a folder that ``save_pretrained`` wrote; safetensors only, no code of the repository.
        revision: Commit on the hub.
    """

    def __init__(self, model: str, revision: str | None = None) -> None:
        self._name, self._revision = model, revision
        self._lock = threading.Lock()
        self._pipeline: Any = None

    def load(self) -> None:
        """Load the model.

        Raises:
            ModelError: It cannot be found or is not one for speech recognition.
        """
        from transformers import pipeline

        try:
            self._pipeline = pipeline(
                "automatic-speech-recognition",
                model=self._name,
                revision=self._revision,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"server.speech={self._name} cannot be loaded: {error}") from error

    def read(self, data: bytes, param: str) -> str:
        """The words of a WAV recording; it blocks for as long as recognition takes, one recording at a time.

        Raises:
            ApiError: It is not a PCM WAV file, or too long.
        """
        samples, rate = _wav(data, param)
        wanted = int(self._pipeline.feature_extractor.sampling_rate)
        with self._lock:
            heard = self._pipeline({"raw": _resample(samples, rate, wanted), "sampling_rate": wanted})
        return str(heard["text"]).strip()


def _wav(data: bytes, param: str) -> tuple[NDArray[np.float32], int]:
    """Mono samples in -1..1 and their rate."""
    import numpy as np

    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise _unreadable(param, f"is not a PCM WAV file: {error}") from None
    kinds: dict[int, Any] = {1: np.dtype("u1"), 2: np.dtype("<i2"), 4: np.dtype("<i4")}
    if width not in kinds or rate not in RATES:
        raise _unreadable(param, f"must have 8, 16 or 32 bits and {RATES[0]} to {RATES[-1]} samples a second")
    whole = len(raw) - len(raw) % (width * channels)
    if not 0 < whole <= SECONDS * rate * width * channels:
        raise _unreadable(param, f"must last between one sample and {SECONDS} s")
    samples = np.frombuffer(raw[:whole], kinds[width]).astype(np.float32).reshape(-1, channels).mean(axis=1)
    if width == 1:
        samples -= 128  # WAV keeps 8 bits unsigned (RIFF WAVE, "Data format of the samples")
    return samples / float(2 ** (8 * width - 1)), rate


def _unreadable(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param} {why}", param=param, code="unreadable_audio")


def _resample(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    if rate == wanted:
        return samples
    from math import gcd

    from scipy.signal import resample_poly

    shared = gcd(rate, wanted)
    resampled: NDArray[np.float32] = resample_poly(samples, wanted // shared, rate // shared).astype("float32")
    return resampled
