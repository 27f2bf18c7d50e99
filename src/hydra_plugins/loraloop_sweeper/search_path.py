"""Which sweepers an application finds: loraloop its own, any other one ``hydra/sweeper=optuna`` beside Hydra's."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class LoraloopSearchPath(SearchPathPlugin):
    """Hydra asks it once for each command, when all plugins are imported."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Leave the path as it is, and store the sweepers that the application is to find."""
        from hydra_plugins.loraloop_sweeper import _sweepers

        _sweepers.store(own=_sweepers.own(element.path for element in search_path.get_path()))
