"""The sweepers in Hydra's ``ConfigStore``, for loraloop's own commands and for any other application."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.config_store import ConfigStore

from loraloop.__main__ import CONF

PROVIDER = "loraloop"
BASIC, OPTUNA, GROUPS = "basic.yaml", "optuna.yaml", ("sampler", "pruner")
GRID: dict[str, Any] = {
    "_target_": "hydra_plugins.loraloop_sweeper.grid_sweeper.GridSweeper",
    "max_batch_size": None,
    "params": {},
}
FOREIGN = {"folder": "${hydra.sweep.dir}", "seed": None, "allow_targets": [""]}
"""What another application's configuration has no key for. A study without a storage is each sweep's own, as with
hydra-optuna-sweeper, and the application's own configuration may name its own functions."""

_others: dict[str, Any] = {}
"""What Hydra and other plugins have stored, while it is not to be found."""


def own(paths: Iterable[str | None]) -> bool:
    """Whether an application with these configuration folders is loraloop."""
    return str(CONF) in paths


def store(*, own: bool) -> None:
    """Store the sweepers that the application is to find.

    Args:
        own: Whether it is loraloop. Its ``optuna`` is a file, which Hydra would hold against a stored configuration of
            that name, and its ``basic`` compares the runs at the end.
    """
    stored: dict[str, Any] = ConfigStore.instance().repo["hydra"]["sweeper"]
    _set_aside(stored)
    if own:
        _store("hydra/sweeper", BASIC, GRID)
        return
    stored.update(_others)
    if OPTUNA not in stored:  # hydra-optuna-sweeper's stays where it is installed
        _store_optuna()


def _set_aside(stored: dict[str, Any]) -> None:
    for name in (BASIC, OPTUNA, *GROUPS):
        found = stored.pop(name, None)
        if found is not None and not _ours(found):
            _others[name] = found


def _ours(found: Any) -> bool:
    if isinstance(found, Mapping):
        return all(_ours(each) for each in found.values())
    return bool(found.provider == PROVIDER)


def _store_optuna() -> None:
    from omegaconf import DictConfig, OmegaConf

    folder = CONF / "hydra" / "sweeper"
    for file in folder.rglob("*.yaml"):
        node = OmegaConf.load(file)
        assert isinstance(node, DictConfig)  # noqa: S101 (our own file)
        node.update({key: value for key, value in FOREIGN.items() if key in node})
        _store("/".join(("hydra/sweeper", *file.relative_to(folder).parts[:-1])), file.name, node)


def _store(group: str, name: str, node: Any) -> None:
    ConfigStore.instance().store(group=group, name=name, node=node, provider=PROVIDER)
