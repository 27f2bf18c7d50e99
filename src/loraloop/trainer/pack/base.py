"""The base of a pack: frozen while the pack trains, afterwards as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Within the context no weight has a gradient and every activation is kept.

    Recomputed activations would meet other dropout masks; an earlier run on the same base may have asked for them.
    """
    trained = [value for value in model.parameters() if value.requires_grad]
    mode = model.training
    model.requires_grad_(False)
    model.gradient_checkpointing_disable()
    try:
        yield
    finally:
        for value in trained:
            value.requires_grad_(True)
        model.train(mode)
