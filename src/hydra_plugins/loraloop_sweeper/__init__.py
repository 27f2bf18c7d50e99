"""Hydra's plugin ``hydra/sweeper=optuna``; Hydra imports it on every command, so it loads nothing until it sweeps."""
