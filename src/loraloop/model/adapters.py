"""Adapters on a base that is in memory, loaded from safetensors alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

OTHER = "other"


def attach(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The base with the adapter of ``folder``, in evaluation mode.

    Raises:
        ModelError: The adapter is damaged, or its shapes do not fit the base.
    """
    from peft import PeftModel

    with _reading(folder):
        attached = PeftModel.from_pretrained(model, str(folder), use_safetensors=True)
    return attached.eval()


@contextmanager
def instead(model: PeftModel, folder: Path) -> Iterator[PeftModel]:
    """Within the context, ``model`` answers with the adapter of ``folder`` instead of its own.

    Raises:
        ModelError: The adapter is damaged, or its shapes do not fit the base.
    """
    own = model.active_adapter
    try:
        with _reading(folder):
            model.load_adapter(str(folder), OTHER, use_safetensors=True)
        model.set_adapter(OTHER)
        yield model.eval()
    finally:
        model.set_adapter(own)
        if OTHER in model.peft_config:
            model.delete_adapter(OTHER)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} is damaged or does not fit the base: {error}") from error
