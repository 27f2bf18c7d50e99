"""The text of ``--help``: stages, groups and examples, read from the folders without loading anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from loraloop.core.suggest import options

EXAMPLES = """\
  loraloop                                                  collect, train, evaluate, register
  loraloop lora=r64 trainer.learning_rate=1e-3 seed=7       other choices, other values
  loraloop stage=preview source=mixed                       what a run would do; writes nothing
  loraloop -m sweeps=rank_alpha_lr                          search rank, alpha and learning rate with Optuna
  loraloop stage=collect source=vault dataset.export=vault.jsonl"""


def text(conf: Path, arguments: Sequence[str] = ()) -> str:
    """What ``loraloop --help`` prints; with ``--config-dir DIR`` also what is in that folder."""
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
            *_own(arguments),
            "examples",
            EXAMPLES,
            "",
            "--cfg job shows the composed configuration, -m runs every combination of comma-separated values,",
            "--config-dir DIR adds groups and modules of your own, --help --config-dir DIR lists them,",
            "--shell-completion install=bash prints a completion script,",
            "--hydra-help lists Hydra's other flags, hydra.verbose=true shows tracebacks.",
        ]
    )


def _own(arguments: Sequence[str]) -> list[str]:
    """The choices in the folder that the command line names, each with the first line of its file's comment."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config-dir", "-cd", type=Path)
    folder: Path | None = flags.parse_known_args(arguments)[0].config_dir
    if folder is None:
        return []
    files = sorted(folder.glob("*/*.yaml"))
    rows = [f"  {f'{file.parent.name}={file.stem}':<24} {_summary(file)}".rstrip() for file in files]
    found = "nothing" if folder.is_dir() else "no such folder"
    nothing = f"  {found}: a choice is a file {folder}/GROUP/CHOICE.yaml, such as {folder}/source/riddles.yaml"
    return [f"your own, in {folder}", *(rows or [nothing]), ""]


def _summary(file: Path) -> str:
    comments = [line[2:] for line in file.read_text("utf8").splitlines() if line.startswith("# ")]
    return next((line for line in comments if not line.startswith("@")), "")
