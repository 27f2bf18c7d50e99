#!/bin/sh
# Install torch before everything else: the CPU build where there is no NVIDIA GPU, which saves gigabytes.
set -eu
pin=$(grep '^torch==' constraints.txt)
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
  exec "$PIP" install --quiet "$pin"
fi
# Linux wheels on PyPI carry CUDA; PyTorch's own index has the CPU build. Asking for the exact version first
# lets an index or folder of your own (PIP_FIND_LINKS) that holds a CPU build answer without it.
if [ -n "${PIP_FIND_LINKS:-}" ] || [ "$(uname -s)" != Linux ]; then
  exec "$PIP" install --quiet "$pin"
fi
"$PIP" install --quiet --retries 1 --timeout 20 --index-url https://download.pytorch.org/whl/cpu "$pin" || exec "$PIP" install --quiet "$pin"
