"""Sweeps on Optuna: what is searched, which trial comes next, and a study that a later sweep can go on with."""
