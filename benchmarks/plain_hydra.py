"""The trials of plain_trl.py under hydra-optuna-sweeper; benchmarks/sweep.py runs it where that is installed.

python benchmarks/plain_hydra.py -m hydra/sweeper=optuna rows=ROWS.json model=MODEL batch=4 'rank=choice(4,8)' ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from plain_trl import trial

KEYS = ("rows", "model", "rank", "ratio", "learning_rate", "batch")
ConfigStore.instance().store(name="config", node=dict.fromkeys(KEYS, "???"))


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config: Any) -> float:
    alpha = config.ratio * config.rank
    folder = Path(HydraConfig.get().runtime.output_dir)
    loss = trial(config.rows, config.model, config.rank, alpha, config.learning_rate, config.batch, folder)
    (folder / "loss").write_text(str(loss))
    return loss


if __name__ == "__main__":
    main()
