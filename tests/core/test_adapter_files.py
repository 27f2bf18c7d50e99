"""The files of an adapter's folder, and copies that other programs read."""

from __future__ import annotations

import pytest

from loraloop.core import adapter_files
from loraloop.core.adapter_files import CONFIG, WEIGHTS


@pytest.fixture
def write(tmp_path):
    """A function that writes an adapter whose matrices hold one value, packed in 8 bits or plain."""
    import torch

    def made(name, value, kept="int8"):
        folder = tmp_path / name
        folder.mkdir()
        values = {f"base_model.model.x.lora_{side}.weight": torch.full((2, 2), value) for side in "AB"}
        adapter_files.write(folder, values, b"{}", kept)
        return folder

    return made


def test_a_plain_copy_takes_no_other_s_place(write, tmp_path):
    """Two adapters have two copies whatever their folders are called, and an adapter beside them stays as it is."""
    from safetensors.torch import load_file

    packed, beside, other = write("a", 1.0), write("a-plain", 2.0, "plain"), write("a.b", 1.0)
    copies = [adapter_files.plain_copy(each) for each in (packed, other)]
    assert len({*copies, packed, other, beside}) == 5
    assert float(load_file(beside / WEIGHTS)["base_model.model.x.lora_A.weight"][0, 0]) == 2.0
    assert float(load_file(copies[0] / WEIGHTS)["base_model.model.x.lora_A.weight"][0, 0]) == pytest.approx(1.0)
    assert adapter_files.plain_copy(beside) == beside


def test_a_plain_copy_is_not_touched_while_it_may_be_read(write):
    """The same adapter has the same copy, whose files stay; a damaged file is mended, other weights go elsewhere."""
    folder = write("a", 1.0)
    copy = adapter_files.plain_copy(folder)
    before = {name: (copy / name).stat().st_ino for name in (CONFIG, WEIGHTS)}
    assert adapter_files.plain_copy(folder) == copy
    assert before == {name: (copy / name).stat().st_ino for name in (CONFIG, WEIGHTS)}
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[:-1])
    assert adapter_files.plain_copy(folder) == copy
    assert (copy / WEIGHTS).read_bytes() == whole
    folder.rename(folder.with_name("old"))
    assert adapter_files.plain_copy(write("a", 2.0)) != copy
