"""The text of ``--help``: stages, groups and examples, read from the folders without loading anything."""

from __future__ import annotations

from pathlib import Path

from loraloop.core.suggest import options

EXAMPLES = """\
  loraloop                                                  collect, train, evaluate, register
  loraloop lora=r64 trainer.learning_rate=1e-3 seed=7       other choices, other values
  loraloop stage=preview source=mixed                       what a run would do; writes nothing
  loraloop -m sweeps=rank_alpha_lr                          search rank, alpha and learning rate with Optuna
  loraloop stage=collect source=vault dataset.export=vault.jsonl"""


def text(conf: Path) -> str:
    """What ``loraloop --help`` prints."""
    groups = sorted(folder.name for folder in conf.iterdir() if folder.is_dir() and folder.name != "hydra")
    rows = [f"  {group:<12} {', '.join(options(conf, group))}" for group in groups if group != "stage"]
    stages = [f"  {stage:<12} {_summary(conf / 'stage' / f'{stage}.yaml')}" for stage in options(conf, "stage")]
    return "\n".join(
        [
            "loraloop: declarative LoRA experiments that close the loop",
            "",
            "usage: loraloop [stage=STAGE] [GROUP=CHOICE ...] [KEY=VALUE ...] [-m] [--cfg job]",
            "",
            "stages (stage=experiment is the default)",
            *stages,
            "",
            "groups (GROUP=CHOICE; +experiment=CHOICE adds an overlay)",
            *rows,
            "",
            "examples",
            EXAMPLES,
            "",
            "--cfg job shows the composed configuration, -m runs every combination of comma-separated values,",
            "--config-dir DIR adds groups of your own, --shell-completion install=bash prints a completion script,",
            "--hydra-help lists Hydra's other flags, hydra.verbose=true shows tracebacks.",
        ]
    )


def _summary(file: Path) -> str:
    comments = [line[2:] for line in file.read_text("utf8").splitlines() if line.startswith("# ")]
    return next((line for line in comments if not line.startswith("@")), "")
