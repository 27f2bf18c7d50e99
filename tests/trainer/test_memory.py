"""Peak memory."""

import mmap

import pytest

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


def test_a_container_leaves_what_its_limits_and_those_around_it_leave(tmp_path):
    """Each control group from the process's own upwards bounds what is free; caches of files count as free."""
    inner = tmp_path / "pod" / "job"
    inner.mkdir(parents=True)
    (tmp_path / "self").write_text("0::/pod/job\n")
    for folder, limit, used, cached in ((inner, "max", 70, 0), (inner.parent, "1000", 800, 300)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    assert memory._container_rooms(tmp_path, tmp_path / "self") == [500]


def test_other_errors_than_a_lack_of_memory_are_raised():
    """An allocation that torch refuses is told by ``None``; any other error passes."""
    import torch

    assert memory.unless_memory_runs_out(lambda: torch.empty(2**60, dtype=torch.uint8)) is None
    with pytest.raises(RuntimeError, match="must match"):
        memory.unless_memory_runs_out(lambda: torch.ones(2) + torch.ones(3))
