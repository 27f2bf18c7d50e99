"""Answers of a GGUF export through llama.cpp, as the library of the package ``llama-cpp-python``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from loraloop.core.extras import require
from loraloop.core.part import part
from loraloop.errors import ArtefactError, ConfigError
from loraloop.records import RuntimeAnswer

EXTRA = "llama-cpp"
CONTEXT = 2048
"""Most tokens of a prompt with its answer."""


@part
class LlamaCpp:
    """Loads a GGUF export on the CPU.

    Attributes:
        base: The base as GGUF, for an export of the LoRA alone.
    """

    base: Path | None = None

    FORMS: ClassVar[tuple[str, ...]] = ("gguf", "gguf-lora")

    def check(self) -> None:
        """See that llama.cpp is there.

        Raises:
            MissingDependencyError: ``llama-cpp-python`` is not installed.
            ConfigError: ``base`` is no file.
        """
        require("llama_cpp", EXTRA)
        if self.base is not None and not self.base.is_file():
            raise ConfigError(f"runtime.base={self.base} is no file: name the base as GGUF")

    def versions(self) -> dict[str, str]:
        """The library that answers."""
        return {"llama-cpp-python": str(require("llama_cpp", EXTRA).__version__)}

    def open(self, export: Path) -> LlamaCppSession:
        """Load an export.

        Raises:
            ArtefactError: llama.cpp cannot load it.
            ConfigError: It is a LoRA alone and ``base`` is not set.
        """
        llama_cpp = require("llama_cpp", EXTRA)
        (file,) = export.glob("*.gguf")
        lora = "-gguf-lora-" in export.name or _is_adapter(file)
        if lora and self.base is None:
            raise ConfigError(f"{file} is a LoRA alone: name its base as GGUF with runtime.base=FILE")
        files = {"model_path": str(self.base), "lora_path": str(file)} if lora else {"model_path": str(file)}
        try:
            return LlamaCppSession(llama_cpp, llama_cpp.Llama(**files, n_ctx=CONTEXT, verbose=False))
        except (ValueError, RuntimeError) as error:
            raise ArtefactError(f"llama.cpp cannot load {file}: {error}") from error


def _is_adapter(file: Path) -> bool:
    from gguf import GGUFReader

    kind: Any = GGUFReader(file).get_field("general.type")
    return kind is not None and kind.contents() == "adapter"


class LlamaCppSession:
    """A loaded export."""

    def __init__(self, library: Any, model: Any) -> None:
        self._library, self._model = library, model

    @property
    def chat_template(self) -> str | None:
        """The template in the file's metadata."""
        found = self._model.metadata.get("tokenizer.chat_template")
        return str(found) if found else None

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._model.tokenize(text.encode(), add_bos=False, special=False))

    def answer(self, prompt: str, new_tokens: int) -> RuntimeAnswer:
        """The greedy answer to a prompt, up to its end token or ``new_tokens``."""
        ids = self._model.tokenize(prompt.encode(), add_bos=True, special=True)
        self._model.reset()
        found: list[int] = []
        ended = False
        for token in self._model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            ended = self._ends(token)
            if ended:
                break
            found.append(token)
            if len(found) == new_tokens:
                break
        tokens = tuple(self._text([each]) for each in found)
        return RuntimeAnswer(text=self._text(found), tokens=tokens, ended=ended)

    def close(self) -> None:
        """Give the memory back."""
        self._model.close()

    def _ends(self, token: int) -> bool:
        vocabulary = self._library.llama_model_get_vocab(self._model.model)
        return bool(self._library.llama_vocab_is_eog(vocabulary, token))

    def _text(self, tokens: list[int]) -> str:
        return bytes(self._model.detokenize(tokens)).decode("utf8", "replace")
