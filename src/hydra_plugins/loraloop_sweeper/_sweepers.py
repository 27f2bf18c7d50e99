"""The sweepers in Hydra's ``ConfigStore``, for loraloop's own commands and for any other application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hydra.core.config_store import ConfigStore

from loraloop.__main__ import CONF

PROVIDER = "loraloop"
SCHEME = "loraloop-sweeper"
BASIC, OPTUNA, GROUPS = "basic.yaml", "optuna.yaml", ("sampler", "pruner")
GRID: dict[str, Any] = {
    "_target_": "hydra_plugins.loraloop_sweeper.grid_sweeper.GridSweeper",
    "max_batch_size": None,
    "params": {},
}
_others: dict[str, Any] = {}
"""What Hydra and other plugins have stored, while it is not to be found."""


def own(paths: Iterable[str | None]) -> bool:
    """Whether an application with these configuration folders is loraloop."""
    return str(CONF) in paths


def store(*, own: bool) -> bool:
    """Store the sweepers that the application is to find beside those of its configuration folders.

    Args:
        own: Whether it is loraloop. Its ``optuna`` is a file, which Hydra would hold against a stored configuration of
            that name, and its ``basic`` compares the runs at the end.

    Returns:
        Whether another plugin has stored an ``optuna`` that the application finds, such as hydra-optuna-sweeper.
    """
    stored: dict[str, Any] = ConfigStore.instance().repo["hydra"]["sweeper"]
    _set_aside(stored)
    if own:
        ConfigStore.instance().store(group="hydra/sweeper", name=BASIC, node=GRID, provider=PROVIDER)
    else:
        stored.update(_others)
    return OPTUNA in stored


def _set_aside(stored: dict[str, Any]) -> None:
    for name in (BASIC, OPTUNA, *GROUPS):
        found = stored.pop(name, None)
        if found is not None and not _ours(found):
            _others[name] = found


def _ours(found: Any) -> bool:
    return getattr(found, "provider", None) == PROVIDER
