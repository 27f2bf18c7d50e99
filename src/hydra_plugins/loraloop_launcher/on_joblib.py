"""``hydra/launcher=joblib``: a pool of processes on this machine that stay for the next trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra_plugins.loraloop_launcher import _job
from hydra_plugins.loraloop_launcher._elsewhere import ElsewhereLauncher
from loraloop.sweep.ending import LostTogetherError


class JoblibLauncher(ElsewhereLauncher):
    """Hands jobs to joblib's loky; when one of its processes is killed, it ends the others' jobs too."""

    def require(self) -> None:
        """See whether joblib is installed."""
        from loraloop.core.extras import require

        require("joblib", "joblib")

    def start(self, tasks: Sequence[_job.Task]) -> Sequence[Any]:
        """Hand the jobs to the pool."""
        from joblib.externals.loky import get_reusable_executor

        pool = get_reusable_executor(max_workers=self.trials_at_once)
        return [pool.submit(_job.carry_out, task) for task in tasks]

    def wait(self, job: Any) -> Any:
        """What the job gave back.

        Raises:
            LostTogetherError: A process of the pool ended, and with it the pool.
        """
        try:
            return job.result()
        except Exception as error:
            raise LostTogetherError from error

    def cancel(self, jobs: Sequence[Any]) -> None:
        """End the pool."""
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor(max_workers=self.trials_at_once).shutdown(kill_workers=True)
