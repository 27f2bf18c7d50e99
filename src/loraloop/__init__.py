"""loraloop: declarative LoRA experiments that close the loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from loraloop.records import RunResult

__all__ = ["__version__", "run"]
__version__ = "0.1.0"


def run(*overrides: str) -> RunResult:
    """Run a stage as ``loraloop OVERRIDE...`` does, from Python or a notebook.

    Args:
        overrides: Those of the command line, such as ``"source=flips"`` and ``"trainer.epochs=1"``.

    Returns:
        The stage's result, the tracked run, the scores and the adapter's folder.

    Raises:
        LoraloopError: With the words that the command line prints. A configuration's is a ``ConfigError``, which holds
            all ``problems``.
    """
    # By name: to import it here would load Hydra with every module of the package, and close a cycle.
    entry = importlib.import_module("loraloop.python")
    return cast("RunResult", entry.run(overrides))
