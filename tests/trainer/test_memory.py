"""Peak memory."""

import mmap

from loraloop.trainer import memory


def test_the_peak_holds_what_was_allocated_and_can_be_forgotten():
    """Freed memory counts in the peak until the peak is reset."""
    import torch

    device = torch.device("cpu")
    memory.reset_peak(device)
    before = memory.peak(device)
    size = 64 * 2**20
    with mmap.mmap(-1, size) as fresh:  # new pages, which freed memory of this process cannot serve
        fresh.write(b"1" * size)
    grown = memory.peak(device)
    assert grown >= before + 0.9 * size
    memory.reset_peak(device)
    assert memory.peak(device) <= grown
