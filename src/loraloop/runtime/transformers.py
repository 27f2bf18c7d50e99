"""Answers of a merged model through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from loraloop.core.part import part
from loraloop.core.tokens import encode_prompt
from loraloop.errors import ArtefactError
from loraloop.records import RuntimeAnswer

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@part
class Transformers:
    """Loads a merged export as any program does that uses transformers.

    Attributes:
        dtype: In which it computes; ``auto`` is that of the files.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    FORMS: ClassVar[tuple[str, ...]] = ("merged",)

    def check(self) -> None:
        """There is nothing to install."""

    def versions(self) -> dict[str, str]:
        """The libraries that answer."""
        import torch
        import transformers

        return {"transformers": transformers.__version__, "torch": str(torch.__version__)}

    def open(self, export: Path) -> TransformersSession:
        """Load an export.

        Raises:
            ArtefactError: It cannot be loaded.
        """
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            model, report = cast("Any", AutoModelForCausalLM).from_pretrained(
                str(export),
                dtype=self.dtype,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(str(export), trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ArtefactError(f"transformers cannot load {export}: {error}") from error
        if report["missing_keys"]:  # transformers fills them with random numbers and goes on
            raise ArtefactError(f"{export} lacks {len(report['missing_keys'])} weights that its config.json asks for")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return TransformersSession(model.to(device).eval(), tokenizer)


class TransformersSession:
    """A loaded export."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model, self._tokenizer = model, tokenizer
        own = cast("Any", model.generation_config).eos_token_id
        self._ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}

    @property
    def chat_template(self) -> str | None:
        """The template that travelled with the export."""
        return str(self._tokenizer.chat_template) if self._tokenizer.chat_template else None

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer(self, prompt: str, new_tokens: int) -> RuntimeAnswer:
        """The greedy answer to a prompt, up to its end token or ``new_tokens``."""
        import torch

        ids = torch.tensor([encode_prompt(self._tokenizer, prompt)], device=self._model.device)
        with torch.no_grad():
            output = cast("Any", self._model).generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=self._greedy(new_tokens)
            )
        new = output[0, ids.shape[1] :].tolist()
        end = next((place for place, token in enumerate(new) if token in self._ends), len(new))
        tokens = [str(self._tokenizer.decode([token], skip_special_tokens=True)) for token in new[:end]]
        text = str(self._tokenizer.decode(new[:end], skip_special_tokens=True))
        return RuntimeAnswer(text=text, tokens=tuple(tokens), ended=end < len(new))

    def close(self) -> None:
        """Give the memory back."""
        del self._model

    def _greedy(self, new_tokens: int) -> GenerationConfig:
        from transformers import GenerationConfig

        # Values set here win over the export's own generation config, which may sample or penalise repetition.
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=new_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=self._tokenizer.eos_token_id,
        )
