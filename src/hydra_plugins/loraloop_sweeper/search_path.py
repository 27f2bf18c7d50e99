"""Which sweepers an application finds: loraloop its own, any other one ``hydra/sweeper=optuna`` beside Hydra's."""

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

GROUP = "hydra/sweeper"
FOREIGN = {"folder": "${hydra.sweep.dir}", "seed": None, "allow_targets": [""]}
"""In place of keys that only loraloop's configuration has. A study without a storage is each sweep's own, as with
hydra-optuna-sweeper, and the application's own configuration may name its own functions."""


class LoraloopSearchPath(SearchPathPlugin):
    """Hydra asks it once for each command, when all plugins are imported."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the sweeper's configuration for an application that has none of that name."""
        from hydra_plugins.loraloop_sweeper import _sweepers
        from loraloop.__main__ import CONF

        own = _sweepers.own(element.path for element in search_path.get_path())
        if not _sweepers.store(own=own) and not own:
            search_path.append(_sweepers.PROVIDER, f"{SweeperConfigSource.scheme()}://{CONF}")


class SweeperConfigSource(FileConfigSource):
    """The group ``hydra/sweeper`` of loraloop's configuration and nothing else of it, for other applications."""

    @staticmethod
    def scheme() -> str:
        """What paths of this source begin with."""
        from hydra_plugins.loraloop_sweeper import _sweepers

        return _sweepers.SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """A file of the group, without references to keys that the application does not have."""
        found = super().load_config(config_path)
        if isinstance(found.config, DictConfig):
            found.config.update({key: value for key, value in FOREIGN.items() if key in found.config})
        return found

    def is_group(self, config_path: str) -> bool:
        """Whether a path is the group, one below, or on the way to it."""
        return (_inside(config_path) or f"{GROUP}/".startswith(f"{config_path}/")) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether a path is a file of the group."""
        return _inside(config_path) and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The choices of the group or one below; elsewhere none."""
        return super().list(config_path, results_filter) if _inside(config_path) else []


def _inside(path: str) -> bool:
    return f"{path}/".startswith(f"{GROUP}/")
