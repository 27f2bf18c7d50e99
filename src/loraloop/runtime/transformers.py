"""Answers through transformers, of a merged model or of a PEFT folder on its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from loraloop.core.messages import for_template, read_all
from loraloop.core.part import part
from loraloop.core.tokens import encode_prompt
from loraloop.errors import ArtefactError
from loraloop.records import Export, RuntimeAnswer

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from loraloop.protocols import BaseFiles

TEMPLATE = "chat_template.jinja"


@part
class Transformers:
    """Loads an export as any program does that uses transformers, and PEFT where it is an adapter alone.

    Attributes:
        dtype: In which it computes; ``auto`` is that of the files, or of the training for an adapter.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    FORMS: ClassVar[tuple[str, ...]] = ("merged", "adapter")

    def check(self) -> None:
        """There is nothing to install."""

    def versions(self) -> dict[str, str]:
        """The libraries that answer."""
        import peft
        import torch
        import transformers

        names = {"transformers": transformers.__version__, "peft": peft.__version__, "torch": str(torch.__version__)}
        return names

    def open(self, folder: Path, export: Export, base: BaseFiles) -> TransformersSession:
        """Load an export.

        Raises:
            ArtefactError: It cannot be loaded.
        """
        import torch
        from peft import PeftModel
        from safetensors import SafetensorError
        from transformers import AutoTokenizer

        alone = export.form == "adapter"
        source = base.folder() if alone else folder
        try:
            model: Any = _model(source, export, self.dtype)
            tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False, local_files_only=True)
            if alone:
                model = PeftModel.from_pretrained(model, str(folder), use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ArtefactError(f"transformers cannot load {folder}: {error}") from error
        if alone and (folder / TEMPLATE).is_file():
            tokenizer.chat_template = (folder / TEMPLATE).read_text("utf8")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return TransformersSession(model.to(device).eval(), tokenizer)


def _model(source: Path, export: Export, dtype: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    alone = export.form == "adapter"
    settings: dict[str, Any] = {"dtype": export.dtype if alone and dtype == "auto" else dtype}
    if alone and export.trained_on.startswith("nf4"):
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=export.trained_on == "nf4-double",
            bnb_4bit_compute_dtype=settings["dtype"],
        )
    model, report = cast("Any", AutoModelForCausalLM).from_pretrained(
        str(source),
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **settings,
    )
    if report["missing_keys"]:  # transformers fills them with random numbers and goes on
        raise ValueError(f"it lacks {len(report['missing_keys'])} weights that its config.json asks for")
    return cast("PreTrainedModel", model)


class TransformersSession:
    """A loaded export."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model, self._tokenizer = model, tokenizer
        own = cast("Any", model.generation_config).eos_token_id
        self._ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}

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

    def top(self, prompt: str, count: int) -> dict[int, float]:
        """The ``count`` likeliest next tokens with their logits."""
        import torch

        ids = torch.tensor([encode_prompt(self._tokenizer, prompt)], device=self._model.device)
        with torch.no_grad():
            top = cast("Any", self._model)(input_ids=ids, use_cache=False).logits[0, -1].float().topk(count)
        return dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int]:
        """A conversation as tokens.

        Raises:
            ArtefactError: The template refuses it.
        """
        try:
            text = self._tokenizer.apply_chat_template(
                [for_template(each) for each in read_all(messages)],
                tools=[dict(each) for each in tools] or None,
                tokenize=False,
                add_generation_prompt=True,
            )
        except Exception as error:  # templates raise what they like
            raise ArtefactError(f"transformers cannot run the chat template: {error}") from error
        ids: list[int] = self._tokenizer(str(text), add_special_tokens=False)["input_ids"]
        return ids

    def computes(self) -> dict[str, str]:
        """The type of the weights."""
        return {"dtype": str(self._model.dtype).removeprefix("torch.")}

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
