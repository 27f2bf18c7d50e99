"""How the threads of a tensor operation wait for each other."""

from __future__ import annotations

import os

SPINS = "2000"
"""Rounds in which GNU's OpenMP looks for work before a thread sleeps: some 20 microseconds."""


def wait_briefly() -> None:
    """Let OpenMP's threads wait awake for a moment and then sleep; called before torch is loaded, which reads it.

    Small operations follow each other within microseconds, and to wake a thread for each costs more than it computes:
    two threads that sleep at once (``PASSIVE``) were slower than one. Threads that never sleep, the default, are 15
    times slower as soon as something else wants a core, and those that wait awake for a moment take twice the
    processor's time then: on a machine that is busy now they sleep at once. What the person set is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        if os.getloadavg()[0] < (os.cpu_count() or 1):
            os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
