"""Run every test of a fault and print what came of each, as a Markdown table.

    python scripts/faults.py > table.md

The tests inject each fault into a real command, process or database and assert that nothing is lost. A row stands here
only where all of its tests passed. What a person was told is the command's own last line where a command was given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent


def main() -> int:
    """Run the suite and print its table; the exit code is pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "fault", str(HERE / "tests")]
        settings = os.environ | {"LORALOOP_FAULT_TABLE": str(file)}
        done = subprocess.run(command, cwd=HERE, env=settings, stdout=sys.stderr, check=False)
        rows = [json.loads(line) for line in file.read_text("utf8").splitlines()] if file.exists() else []
    print("| fault | where | what happened; nothing else was lost | what the person was told | test |")
    print("| --- | --- | --- | --- | --- |")
    lines = {
        f"| {row['fault']} | {row['stage']} | {row['happened']} | {row['told'].replace('|', chr(92) + '|') or '-'} "
        f"| `{row['test'].removeprefix('tests/').removesuffix('.py')}` |"
        for row in rows
    }
    print("\n".join(sorted(lines)))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
