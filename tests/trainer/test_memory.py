"""Peak memory."""

import numpy as np

from loraloop.trainer import memory


def test_the_peak_holds_what_was_allocated_and_can_be_forgotten():
    """A freed array counts in the peak until the peak is reset."""
    import torch

    device = torch.device("cpu")
    memory.reset_peak(device)
    before = memory.peak(device)
    array = np.ones(8 * 2**20)
    size = array.nbytes
    del array
    grown = memory.peak(device)
    assert grown >= before + 0.9 * size
    memory.reset_peak(device)
    assert memory.peak(device) <= grown
