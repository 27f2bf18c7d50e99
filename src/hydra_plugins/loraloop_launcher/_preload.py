"""What the server imports that isolated jobs are forked from: a fresh process takes seconds for it."""

import importlib
import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns of a CPU kernel that it does not need
for name in ("loraloop.__main__", "torch", "trl.trainer.sft_trainer", "peft", "mlflow", "datasets"):
    importlib.import_module(name)
