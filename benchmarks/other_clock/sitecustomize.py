"""On the path of a node of Ray: its workers begin anew under libfaketime, where ``FAKETIME`` says by how much.

Ray keeps ``LD_PRELOAD`` from its workers. Under libfaketime 0.9.10 ``time.sleep`` fails, because ``clock_nanosleep`` is
given a time of the past.
"""

import os
import select
import sys
import time
from pathlib import Path

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


if os.environ.get("LD_PRELOAD") == str(LIBRARY):
    time.sleep = _sleep
elif "FAKETIME" in os.environ and any("default_worker.py" in word for word in sys.orig_argv):
    os.execve(sys.executable, sys.orig_argv, os.environ | {"LD_PRELOAD": str(LIBRARY)})
