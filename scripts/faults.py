"""Give every command of the fault suite and print what came of each fault, as a Markdown table.

    python scripts/faults.py

The tests in tests/faults inject each fault into a real command and assert that nothing is lost; a row stands here only
where its test passed. What a person was told is the command's own last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent
TABLE = "LORALOOP_FAULT_TABLE"


def main() -> int:
    """Run the suite and print its table; the exit code is pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "tests/faults")]
        done = subprocess.run(command, cwd=HERE, env=os.environ | {TABLE: str(file)}, stdout=sys.stderr, check=False)
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    print("| fault | where | what happened; nothing else was lost | what the person was told |")
    print("| --- | --- | --- | --- |")
    for row in sorted(rows, key=lambda row: (row["fault"], row["stage"])):
        told = row["told"].removeprefix("loraloop: ").replace("|", "\\|")
        print(f"| {row['fault']} | {row['stage']} | {row['happened']} | {told} |")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
