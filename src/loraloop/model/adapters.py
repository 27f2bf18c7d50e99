"""Adapters on a base that is in memory, loaded from safetensors alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import adapter_files
from loraloop.core.tokens import encode_prompt
from loraloop.records import Probe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE = "Twelve vaults of brass: HTHH TTHT 0110 1001, which of them opens?\n> "
PROBE_TOKENS = 20


def attach(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The base with the adapter of ``folder``, in evaluation mode.

    Raises:
        ModelError: The adapter is damaged, or its shapes do not fit the base.
    """
    from peft import PeftModel

    with adapter_files.reading(folder), adapter_files.plain(folder) as read:
        attached = PeftModel.from_pretrained(model, str(read), use_safetensors=True)
    return attached.eval()


def detach(model: PreTrainedModel) -> None:
    """Take every adapter off a base that PEFT has wrapped layer by layer; its own weights stay as they are.

    PEFT's ``unload`` needs the model that carries the adapter, which a training that ended early never gave.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            model.set_submodule(name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


@contextmanager
def attached(model: PreTrainedModel, folder: Path) -> Iterator[PeftModel]:
    """Within the context, the base answers with the adapter of ``folder``; afterwards it is as it was.

    Raises:
        ModelError: The adapter is damaged, or its shapes do not fit the base.
    """
    import torch

    # PEFT writes trained biases over those of the base.
    biases = {name: value.detach().clone() for name, value in model.named_parameters() if name.endswith("bias")}
    try:
        with torch.random.fork_rng():
            carrier = attach(model, folder)
        yield carrier
    finally:
        detach(model)
        for name, value in biases.items():
            model.get_parameter(name).data.copy_(value)


def probe(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> Probe:
    """What the adapted model makes of :data:`PROBE`, to be kept with the adapter."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            ids = torch.tensor([encode_prompt(tokenizer, PROBE)], device=model.device)
            top = model(input_ids=ids, use_cache=False).logits[0, -1].float().topk(PROBE_TOKENS)
    finally:
        model.train(training)
    return Probe(prompt=PROBE, tokens=tuple(top.indices.tolist()), logits=tuple(top.values.tolist()))
