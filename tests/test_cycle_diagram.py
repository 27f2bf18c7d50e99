"""The picture and the table of the cycle are what the transitions say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "cycle_diagram.py"


def test_the_picture_and_the_table_are_up_to_date():
    """``scripts/cycle_diagram.py --check`` finds nothing to change in the documentation."""
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
